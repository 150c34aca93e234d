"""Ends a process: turns an error into one line of text and an exit code."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from megapt.errors import Exit, MegaptError, RanksLost, RunInterrupted, is_unavailable


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _print(text: str) -> None:
    print(f"megapt: {text}", file=sys.stderr, flush=True)


def _print_error(error: MegaptError) -> None:
    """Print an error in one line.

    Most errors are common to all ranks, so only the first rank prints them. `RanksLost` is not:
    each rank prints its own text, if it has one.
    """
    if isinstance(error, RanksLost):
        if str(error):
            _print(f"{error.label}: {error}")
    elif _rank() == 0:
        more = "; the same command resumes from there" if isinstance(error, RunInterrupted) else ""
        _print(f"{error.label}: {error}{more}")


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether an allocation on a GPU has failed; do not import torch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def run_and_report(job: Callable[[], object]) -> int:
    """Run `job`; return exit code 0, or print the error in one line and return its code.

    Raises:
        Exception: an error that is neither one of `megapt.errors` nor a system error is a bug.
    """
    try:
        job()
    except MegaptError as error:
        _print_error(error)
        return error.code
    except BrokenPipeError:
        # The reader, for example `head`, has closed the pipe; the flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE_CLOSED
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        # Not all ranks have this error, so every rank that has it prints it.
        where = f"rank {_rank()}: " if _rank() else ""
        _print(f"error: {where}{named}{error.strerror or error}")
        return Exit.RESTART if is_unavailable(error) else Exit.FAILED
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        # Not all ranks have this error either.
        line = str(error).partition(". ")[0]
        _print(
            f"training failed: rank {_rank()}: {line}; try a smaller training.micro_batch_size, "
            f"training.recompute or a higher parallel.zero_stage: see megapt plan"
        )
        return Exit.FAILED
    except KeyboardInterrupt:
        if _rank() == 0:
            _print("interrupted")
        return Exit.INTERRUPTED
    return Exit.DONE


def leave(code: int) -> NoReturn:
    """Destroy the process group, then end the process.

    A rank skips the normal exit of the interpreter. Threads of torch's process group are sometimes
    still alive when the interpreter destroys their owner. This aborts a process whose work is done,
    and the launcher then reports a failed job.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_initialized():
        sys.exit(code)
    if code == 0:
        torch.distributed.destroy_process_group()
    for child in multiprocessing.active_children():
        child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)
