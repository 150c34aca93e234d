"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.execution import ExecutorKind
from data_prep.inputs import ErrorPolicy, InputFormat, TextSplit

Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="Files, folders, globs or URLs; formats: see docs/data.md."),
]
Format = Annotated[
    InputFormat | None,
    typer.Option("--format", help="Format of all files; by suffix if not given."),
]
TextField = Annotated[
    str | None, typer.Option(help='Field or column that holds the text: "text" if not given.')
]
Errors = Annotated[
    ErrorPolicy | None,
    typer.Option(help="At a faulty document: stop; skip and count it; or replace bad UTF-8."),
]
SplitText = Annotated[
    TextSplit | None,
    typer.Option(help="What is a document in a text file; the whole file if not given."),
]
Separator = Annotated[
    str | None, typer.Option(help="With --split-text separator: the line between documents.")
]
Config = Annotated[Path | None, typer.Option(help="A YAML file of settings.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="PATH=VALUE; overrides the config; repeatable.")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one per core if not given.")]
Executor = Annotated[ExecutorKind, typer.Option(help="Local processes, or the ranks of mpirun.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
