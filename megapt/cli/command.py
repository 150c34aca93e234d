"""What every command has in common: errors end in one line and an exit code."""

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
    int | None, typer.Option(min=1, help="Token ids, where the corpus is not there yet.")
]
Labels = Annotated[int, typer.Option(min=0, help="Document classes, likewise.")]

Command = TypeVar("Command", bound=Callable[..., None])


def add_command(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Add a command to `app` whose errors end in one line and an exit code.

    Commands import what they need themselves: torch takes seconds to load, `--help` should not.
    """

    def add(function: Command) -> Command:
        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            from megapt.exits import guarded, leave

            leave(guarded(lambda: function(*args, **kwargs)))

        app.command(name)(run)
        return function

    return add
