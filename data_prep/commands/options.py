"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from data_prep.execution import ExecutorKind
from data_prep.inputs import ErrorPolicy, InputFormat, InputSettings, TextSplit
from data_prep.settings import BuildSettings


def setting(name: str, help_text: str) -> Any:
    """Return the option of a setting, whose default is that of the setting.

    Args:
        name: field of `BuildSettings` or `InputSettings`.
        help_text: what the option does.
    """
    fields = BuildSettings.model_fields | InputSettings.model_fields
    return typer.Option(
        f"--{name.replace('_', '-')}", help=help_text, show_default=str(fields[name].default)
    )


Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", help="Files, folders, globs or URLs; formats: see docs/data.md."),
]
Format = Annotated[
    InputFormat | None,
    setting("format", "Format of all files; auto: by suffix."),
]
TextField = Annotated[str | None, setting("text_field", "Field or column that holds the text.")]
Errors = Annotated[
    ErrorPolicy | None,
    setting("errors", "At a faulty document: stop; skip and count it; or replace bad UTF-8."),
]
SplitText = Annotated[
    TextSplit | None,
    setting("split_text", "What is a document in a text file."),
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
