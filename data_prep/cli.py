"""The command `megapt-prep`."""

import io
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

import typer

from data_prep.commands.build import build_command
from data_prep.commands.inspecting import (
    diff_command,
    inspect_command,
    show_command,
    verify_command,
)
from data_prep.commands.rearranging import merge_command, reshard_command
from data_prep.commands.tokenizers import example_command, tokenizer_command
from data_prep.errors import PrepError

app = typer.Typer(
    help="Prepare text corpora for megapt: train a tokenizer, build shards, inspect them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for name, command in (
    ("tokenizer", tokenizer_command),
    ("build", build_command),
    ("inspect", inspect_command),
    ("show", show_command),
    ("verify", verify_command),
    ("diff", diff_command),
    ("merge", merge_command),
    ("reshard", reshard_command),
    ("example", example_command),
):
    app.command(name)(command)


class _Interrupted(BaseException):
    """SIGINT or SIGTERM; a BaseException, so that no `except Exception` takes it for a fault."""

    def __init__(self, number: int) -> None:
        self.number = number


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise _Interrupted(number)


def _handle_signals(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def repeat_input_option(arguments: Sequence[str]) -> list[str]:
    """Write `--input a b` as `--input a --input b`, so that `--input *.jsonl` works."""
    repeated: list[str] = []
    in_input = False
    for argument in arguments:
        if argument.startswith("-"):
            in_input = argument == "--input"
        elif in_input and repeated[-1] != "--input":
            repeated.append("--input")
        repeated.append(argument)
    return repeated


def main() -> None:
    """Run the command line.

    Exit code 0; 2 after a fault, which is printed in one line; 130 after Ctrl-C.
    """
    _handle_signals(_interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):  # the terminal may not be able to show a text
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(repeat_input_option(sys.argv[1:]), prog_name="megapt-prep")
    except PrepError as error:
        _fail(f"error: {error}", 2)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _fail(f"error: {place}{error.strerror or error}", 2)
    except _Interrupted as interruption:
        _fail("interrupted", 128 + interruption.number)
    finally:
        # Everything is done and printed; a signal must not interrupt the atexit hook that ends the
        # workers.
        _handle_signals(signal.SIG_IGN)


def _fail(line: str, code: int) -> NoReturn:
    # A second signal must not interrupt the line with a traceback.
    _handle_signals(signal.SIG_IGN)
    print(f"megapt-prep: {line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
