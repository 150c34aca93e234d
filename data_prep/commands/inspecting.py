"""The commands that inspect finished corpora: inspect, show, verify, diff."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from data_prep.commands import options
from data_prep.corpora.difference_report import (
    difference_lines,
    difference_summary,
    has_differences,
)
from data_prep.corpora.differing import MatchBy
from data_prep.corpora.reading import Corpus
from data_prep.corpora.reports import document_heading, print_summary
from data_prep.corpora.showing import document_summary, sample, with_id
from data_prep.corpora.statistics import corpus_summary
from data_prep.corpora.verifying import verify_corpus
from data_prep.errors import PrepError
from data_prep.execution import open_executor

CorpusFolder = Annotated[Path, typer.Argument(metavar="CORPUS", help="The corpus folder.")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="Only this split; repeatable.")]


def inspect_command(
    corpus: CorpusFolder,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw a figure: .svg or .png.")
    ] = None,
    tokens: Annotated[
        bool,
        typer.Option("--tokens", help="Read the tokens too, for characters and vocabulary use."),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Print statistics of a corpus: counts, lengths, labels, and rejected documents."""
    if plot:
        # Imported here because loading it takes longer than the other commands take to run.
        from data_prep.corpora.plotting import check_format, plot_summary

        check_format(plot)
    summary = corpus_summary(Corpus(corpus), tokens=tokens)
    if plot:
        plot_summary(summary, corpus.resolve().name, plot)
    if as_json:
        _print_json(summary)
    else:
        print_summary(summary, Console())


def show_command(
    corpus: CorpusFolder,
    document: Annotated[
        int | None, typer.Option(min=0, help="Document number in the input.")
    ] = None,
    id_: Annotated[
        str | None, typer.Option("--id", help="Id of the document; scans all ids of the corpus.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--sample", min=1, metavar="K", help="K random documents.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    split: Splits = None,
    as_json: options.Json = False,
) -> None:
    """Print documents as text with a mark before each word (|) and each sentence (‖)."""
    if sum(option is not None for option in (document, id_, count)) != 1:
        raise PrepError("show needs one of --document N, --id ID and --sample K")
    opened = Corpus(corpus, split or ())
    if document is not None:
        found = [opened.find(document)]
    elif id_ is not None:
        found = with_id(opened, id_)
    else:
        found = list(sample(opened, count or 1, seed))
    for place, one in enumerate(found):
        shown = document_summary(opened, one)
        if as_json:
            _print_json(shown)
        else:
            print("\n" * (place > 0) + document_heading(shown))
            print(shown["marked"])


def verify_command(
    corpora: Annotated[list[Path], typer.Argument(metavar="CORPUS...", help="Corpus folders.")],
    workers: options.Workers = None,
    executor: options.Executor = "local",
    text: Annotated[
        bool, typer.Option("--text", help="Also decode every document and check its bytes.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Check every byte and every count of corpora.

    Exit code 0: all sound; 1: faults were found; 2: a folder is not a corpus.
    """
    sound = True
    with open_executor(executor, workers) as opened:
        if opened is None:  # an MPI rank that has done its part
            return
        for corpus in corpora:
            verdict = verify_corpus(corpus, opened, text=text)
            sound &= not verdict.faults
            if as_json:
                _print_json(
                    {
                        "corpus": str(corpus),
                        "sound": not verdict.faults,
                        "fingerprint": verdict.fingerprint,
                        "faults": [fault._asdict() for fault in verdict.faults],
                        "notes": verdict.notes,
                        "shards": verdict.shards,
                        "documents": verdict.documents,
                        "tokens": verdict.tokens,
                    }
                )
                continue
            for fault in verdict.faults:
                print(f"{corpus}: {fault}")
            for note in verdict.notes:
                print(f"{corpus}: note: {note}")
            if verdict.faults:
                print(f"{corpus}: {len(verdict.faults)} faults")
            else:
                print(
                    f"{corpus}: sound, {verdict.documents:,} documents, {verdict.tokens:,} tokens "
                    f"in {verdict.shards:,} shards, fingerprint {verdict.fingerprint}"
                )
    if not sound:
        raise typer.Exit(1)


def diff_command(
    a: Annotated[Path, typer.Argument(metavar="A", help="A corpus folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another corpus folder.")],
    by: Annotated[
        MatchBy | None,
        typer.Option(help="Match by id, text or number; by id where both keep ids, else by text."),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Show the text that differs.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Documents of each kind to list.")] = 10,
    as_json: options.Json = False,
) -> None:
    """Show which documents differ between two corpora.

    Exit code 0: the same documents; 1: some differ; 2: a folder is not a corpus.
    """
    summary = difference_summary(Corpus(a), Corpus(b), by, limit, text)
    if as_json:
        _print_json(summary)
    else:
        for line in difference_lines(summary):
            print(line)
    if has_differences(summary):
        raise typer.Exit(1)


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))
