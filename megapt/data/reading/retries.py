"""Retries with exponential backoff."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from megapt.config import ReadingConfig
from megapt.data.random import CounterRng
from megapt.data.reading.errors import TransferError, UnreachableFile, log

T = TypeVar("T")

_LONGEST_PAUSE = 30.0


def longest_pause(reading: ReadingConfig) -> float:
    """Return the most seconds that the last pause between two attempts may take."""
    return min(_LONGEST_PAUSE, reading.backoff * 2.0 ** min(reading.max_retries, 64))


def pause_before(retry: int, file: str, reading: ReadingConfig) -> float:
    """Return the seconds to wait before a retry: between half of the backoff and all of it.

    The share is random, so that readers that failed together do not retry together.

    Args:
        retry: number of the retry, from 0.
        file: name of the file; it keys the draw.
        reading: the settings; `backoff` is the base.
    """
    backoff = min(_LONGEST_PAUSE, reading.backoff * 2.0 ** min(retry, 64))
    share = float(CounterRng("retry", file, retry).uniform(1)[0])
    return backoff * (1 + share) / 2


def with_retries(attempt: Callable[[], T], file: str, reading: ReadingConfig) -> T:
    """Call `attempt`, again after each `TransferError` up to `max_retries` times.

    Returns:
        What `attempt` returned.

    Raises:
        MegaptError: if the last attempt failed too. Its class is the fault of that attempt, or
            `UnreachableFile` if the file was unreachable in any attempt.
    """
    retry = 0
    unreachable = False
    while True:
        try:
            return attempt()
        except TransferError as error:
            unreachable |= error.fault is UnreachableFile
            if retry == reading.max_retries:
                fault = UnreachableFile if unreachable else error.fault
                raise fault(_final_message(str(error), retry + 1, unreachable)) from None
            pause = pause_before(retry, file, reading)
            retry += 1
            log.warning(
                "%s; trying again in %.2g s (retry %d of %d)",
                error,
                pause,
                retry,
                reading.max_retries,
            )
            time.sleep(pause)


def _final_message(text: str, attempts: int, unreachable: bool) -> str:
    times = "once" if attempts == 1 else f"{attempts} times"
    remedy = "" if unreachable else "copy the file again or build the corpus again; "
    return (
        f"{text} (tried {times}); {remedy}"
        "data.reading.max_retries and data.reading.timeout limit the retries"
    )
