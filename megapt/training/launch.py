"""Runs a job on this process's rank and turns its errors into one line and an exit code."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn, TypeVar

import torch

from megapt.config import CompareConfig, ConfigError, Origins, RunConfig, load_config
from megapt.training.checkpoints import CheckpointError
from megapt.training.distributed import Ranks, start_ranks
from megapt.training.exits import Exit, RanksLost, TrainingError
from megapt.training.stopping import RunInterrupted
from megapt.training.trainer import Trainer

ConfigT = TypeVar("ConfigT", RunConfig, CompareConfig)


def complain(message: str) -> None:
    """Print one line on standard error, on the first rank only."""
    if _rank() == 0:
        print(f"megapt: {message}", file=sys.stderr, flush=True)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def guarded(job: Callable[[], None]) -> int:
    """Run `job` and return the exit code: 0, or that of the error, which is told in one line."""
    try:
        job()
    except ConfigError as error:
        complain(f"error: {error}")
        return Exit.WRONG_INPUT
    except (TrainingError, CheckpointError) as error:
        complain(f"training failed: {error}")
        return Exit.FAILED
    except RanksLost as error:
        if str(error):
            print(f"megapt: error: {error}", file=sys.stderr, flush=True)
        return error.code
    except torch.OutOfMemoryError as error:
        # Not what all ranks agree on either.
        line = str(error).partition(". ")[0]
        print(
            f"megapt: training failed: rank {_rank()}: {line}; a smaller training.micro_batch, "
            f"training.recompute or a higher parallel.zero_stage takes less: see megapt plan",
            file=sys.stderr,
            flush=True,
        )
        return Exit.FAILED
    except BrokenPipeError:
        # The reader, `head` say, has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE_CLOSED
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        # Not what all ranks agree on: whoever meets it has to tell.
        where = f"rank {_rank()}: " if _rank() else ""
        line = f"megapt: error: {where}{named}{error.strerror or error}"
        print(line, file=sys.stderr, flush=True)
        return Exit.FAILED
    except RunInterrupted as error:
        complain(f"interrupted: {error}; the same command goes on from there")
        return error.code
    except KeyboardInterrupt:
        complain("interrupted")
        return Exit.INTERRUPTED
    return Exit.DONE


def arguments(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return (config file, overrides) of the words that a launcher passes on.

    Raises:
        ConfigError: if the config file is missing from them.
    """
    words = [word for word in argv if not word.startswith("--local_rank")]
    if not words:
        raise ConfigError("command line: give a config file, then key=value words")
    return words[0], words[1:]


def begin(
    schema: type[ConfigT], config_file: str, overrides: Sequence[str]
) -> tuple[ConfigT, Origins, Ranks]:
    """Load the configuration and join the ranks.

    Under a launcher the ranks meet first: it ends all of them once one has failed, and the first,
    which speaks for all, might not have come to speak.
    """
    if "RANK" not in os.environ:
        config, origins = load_config(schema, config_file, overrides)
        return config, origins, start_ranks()
    ranks = start_ranks()
    with ranks.together():
        config, origins = load_config(schema, config_file, overrides)
    return config, origins, ranks


def train(config_file: str, overrides: Sequence[str]) -> None:
    """Train the run that the file describes, on this process's rank."""
    config, origins, ranks = begin(RunConfig, config_file, overrides)
    trainer = Trainer(config, ranks, origins)
    if trainer.folder.finished and ranks.main:
        print(f"{trainer.folder.folder}: finished already; nothing to do")
        return
    summary = trainer.train()
    if ranks.main:
        loss = summary["heldout"]["loss"]
        print(
            f"{trainer.folder.folder}: {summary['steps']} steps, held-out loss {loss:.4f}, "
            f"{summary['tokens_per_second']:,.0f} tokens/s"
        )


def leave(code: int) -> NoReturn:
    """End the process, the group first.

    A rank does not go through the interpreter's own end: now and then the threads of torch's
    process group are still alive when their owner is destroyed there, which aborts a process whose
    work is done, and the launcher then reports a failed job.
    """
    import torch.distributed

    if not torch.distributed.is_initialized():
        sys.exit(code)
    if code == 0:
        torch.distributed.destroy_process_group()
    for child in multiprocessing.active_children():
        child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)
