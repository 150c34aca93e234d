"""Common parts of the commands: arguments, and errors as one line with an exit code."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, TypeVar

import typer

ConfigFile = Annotated[str, typer.Argument(help="YAML file; see configs/.", metavar="CONFIG")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Settings to change.", metavar="[key=value …]")
]
Run = Annotated[str, typer.Argument(help="Folder of a trained run.", metavar="RUN")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Vocabulary = Annotated[
    int | None, typer.Option(min=1, help="Number of token ids, if the corpus does not exist yet.")
]
Labels = Annotated[
    int, typer.Option(min=0, help="Number of document classes, if the corpus does not exist yet.")
]

Command = TypeVar("Command", bound=Callable[..., None])


def add_command(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Return a decorator that adds a command to `app`; errors become one line and an exit code.

    Commands do their own imports: torch takes seconds to load, and `--help` should be fast.

    Args:
        app: application that gets the command.
        name: name of the command.
    """

    def add(function: Command) -> Command:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            from megapt.exits import leave, run_and_report

            leave(run_and_report(lambda: function(*args, **kwargs)))

        app.command(name)(run)
        return function

    return add
