"""The end of a process: an error becomes one line and an exit code."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from megapt.errors import Exit, MegaptError, RanksLost, RunInterrupted, is_away


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _print(text: str) -> None:
    print(f"megapt: {text}", file=sys.stderr, flush=True)


def _tell(error: MegaptError) -> None:
    """Print an error: that of all ranks on the first, that of some ranks wherever it has a text."""
    if isinstance(error, RanksLost):
        if str(error):
            _print(f"{error.label}: {error}")
    elif _rank() == 0:
        more = "; the same command goes on from there" if isinstance(error, RunInterrupted) else ""
        _print(f"{error.label}: {error}{more}")


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation on a GPU has failed; a command without torch does not import it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def guarded(job: Callable[[], object]) -> int:
    """Run `job` and return the exit code: 0, or that of the error, which is told in one line.

    Raises:
        Exception: what is none of `megapt.errors` and no fault of the system: a bug.
    """
    try:
        job()
    except MegaptError as error:
        _tell(error)
        return error.code
    except BrokenPipeError:
        # The reader, `head` say, has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE_CLOSED
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        # Not what all ranks agree on: whoever meets it has to tell.
        where = f"rank {_rank()}: " if _rank() else ""
        _print(f"error: {where}{named}{error.strerror or error}")
        return Exit.START_AGAIN if is_away(error) else Exit.FAILED
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        # Not what all ranks agree on either.
        line = str(error).partition(". ")[0]
        _print(
            f"training failed: rank {_rank()}: {line}; a smaller training.micro_batch_size, "
            f"training.recompute or a higher parallel.zero_stage takes less: see megapt plan"
        )
        return Exit.FAILED
    except KeyboardInterrupt:
        if _rank() == 0:
            _print("interrupted")
        return Exit.INTERRUPTED
    return Exit.DONE


def leave(code: int) -> NoReturn:
    """End the process, its process group first.

    A rank does not go through the interpreter's own end: now and then the threads of torch's
    process group are still alive when their owner is destroyed there, which aborts a process whose
    work is done, and the launcher then reports a failed job.
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
