"""The command `build`."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from data_prep.build import build_corpus
from data_prep.commands import options
from data_prep.config_file import ConfigFile, parse_assignment, put
from data_prep.errors import PrepError
from data_prep.execution import open_executor
from data_prep.manifest import Manifest
from data_prep.pipeline.dry_run import print_trial, try_cleaning
from data_prep.pipeline.provenance import read_record
from data_prep.pipeline.uploading import upload_corpus
from data_prep.settings import UNNAMED, BuildConfig


def build_command(
    inputs: options.Inputs = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.model or tokenizer.json.")
    ] = None,
    output: Annotated[str | None, typer.Option(help="The corpus folder, or a URL.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for the corpus before its upload to a URL.")
    ] = None,
    config: options.Config = None,
    assignments: options.Assignments = None,
    format_: options.Format = None,
    text_field: options.TextField = None,
    label_field: Annotated[
        str | None,
        typer.Option(help='Field of the label; "label" if there is one; "" for no labels.'),
    ] = None,
    id_field: Annotated[
        str | None, typer.Option(help="Field of a document's id, kept in the shards.")
    ] = None,
    group_field: Annotated[
        str | None, typer.Option(help="Documents with the same value stay in one split.")
    ] = None,
    split_text: options.SplitText = None,
    separator: options.Separator = None,
    errors: options.Errors = None,
    words: Annotated[
        str | None,
        options.setting("words", "Where CJK words start: at each piece, or as jieba says."),
    ] = None,
    valid_fraction: Annotated[
        float | None,
        options.setting("valid_fraction", "Expected share of validation documents or groups."),
    ] = None,
    seed: Annotated[int | None, options.setting("seed", "Seed of the split.")] = None,
    block_tokens: Annotated[
        int | None, options.setting("block_tokens", "Tokens per block.")
    ] = None,
    shard_tokens: Annotated[
        int | None, options.setting("shard_tokens", "Tokens per shard.")
    ] = None,
    workers: options.Workers = None,
    executor: options.Executor = "local",
    overwrite: Annotated[bool, typer.Option(help="Replace another corpus in --output.")] = False,
    dry_run: Annotated[
        int | None,
        typer.Option(min=1, help="Show what cleaning does to this many documents; build nothing."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Clean, tokenize and pack a corpus into shards with a manifest."""
    reading = {
        "paths": inputs,
        "format": format_,
        "text_field": text_field,
        "label_field": label_field,
        "id_field": id_field,
        "group_field": group_field,
        "split_text": split_text,
        "separator": separator,
    }
    content = {
        "errors": errors,
        "words": words,
        "valid_fraction": valid_fraction,
        "seed": seed,
        "block_tokens": block_tokens,
        "shard_tokens": shard_tokens,
        "tokenizer": tokenizer,
        "output": output,
    }
    # Before anything else, so that only one of many MPI ranks reports an error.
    with open_executor(executor, workers, preload=["data_prep.build"]) as opened:
        if opened is None:  # a rank that has done its part
            return
        chosen = read_config(config, assignments or [], reading, content)
        if dry_run is not None:
            trial = try_cleaning(chosen.settings, dry_run)
            if as_json:
                print(json.dumps(trial.as_json(), ensure_ascii=False))
            else:
                print_trial(trial, Console())
            return
        if chosen.tokenizer is None or chosen.output is None:
            missing = "--tokenizer" if chosen.tokenizer is None else "--output"
            raise PrepError(f"{missing} is missing: give it, or set it in the config file")
        folder = _local_folder(chosen.output, work)
        manifest, built = build_corpus(
            chosen.settings, chosen.tokenizer, folder, opened, overwrite=overwrite
        )
        if work:
            built |= upload_corpus(folder, chosen.output, opened, overwrite=overwrite)
    if as_json:
        print(json.dumps({"built": built, **manifest.summary()}, ensure_ascii=False))
    else:
        _print_result(chosen.output, manifest, built)
        for reason, places in read_record(folder).examples.items():
            print(f"  {reason}, first: {places[0]}")


def _local_folder(output: str, work: Path | None) -> Path:
    """Return the folder to write: `output`, or for a URL its last part in the folder `work`."""
    if ("://" in output) != (work is not None):
        raise PrepError(f"--output {output}: a URL needs --work FOLDER; a folder must not have it")
    return work / output.rstrip("/").rpartition("/")[2] if work else Path(output)


def read_config(
    path: Path | None,
    assignments: list[str],
    reading: dict[str, Any],
    content: dict[str, Any],
) -> BuildConfig:
    """Combine a build's settings: the file, then --set, then the options.

    Args:
        path: the config file, or None.
        assignments: values of --set, each "PATH=VALUE".
        reading: options for reading the only corpus, which has no name; None for options that
            were not given.
        content: the other options.

    Raises:
        PrepError: a setting is wrong, or a reading option is given and the config names corpora.
    """
    file = ConfigFile(path)
    values = file.values
    for assignment in assignments:
        put(values, *parse_assignment(assignment))
    given = {name: value for name, value in reading.items() if value is not None}
    if values.get("corpora"):
        if given:
            option = "--input" if "paths" in given else "--" + next(iter(given)).replace("_", "-")
            raise PrepError(
                f"{option}: the config names its corpora; set there how each of them is read"
            )
    else:
        if "paths" not in given:
            raise PrepError("--input is missing: give files or folders, or `corpora` in --config")
        values["corpora"] = {UNNAMED: given}
    values |= {name: value for name, value in content.items() if value is not None}
    return file.check(BuildConfig, values)


def _print_result(output: str, manifest: Manifest, built: bool) -> None:
    print(f"{output}: {'built' if built else 'already built'}, fingerprint {manifest.fingerprint}")
    for name, split in manifest.splits.items():
        print(
            f"  {name}: {split.documents:,} documents, {split.tokens:,} tokens, "
            f"{split.text_bytes / split.tokens:.2f} bytes per token, {len(split.shards)} shards"
        )
    for title, counts in (("rejected", manifest.rejected), ("changed", manifest.changed)):
        for reason, count in Counter(counts).most_common():
            print(f"  {title}: {count:,} ({reason})")
