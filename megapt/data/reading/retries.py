"""Trying again, after pauses that grow."""

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
    """Seconds that the last pause between two attempts takes at most."""
    return min(_LONGEST_PAUSE, reading.backoff * 2.0 ** min(reading.max_retries, 64))


def pause_before(retry: int, file: str, reading: ReadingConfig) -> float:
    """Seconds to wait before retry number 0, 1, …: between half of the backoff and all of it.

    The share is drawn, so that many readers that failed together do not come back together.
    """
    backoff = min(_LONGEST_PAUSE, reading.backoff * 2.0 ** min(retry, 64))
    share = float(CounterRng("retry", file, retry).uniform(1)[0])
    return backoff * (1 + share) / 2


def with_retries(attempt: Callable[[], T], file: str, reading: ReadingConfig) -> T:
    """What `attempt` returns, called again after each `TransferError` as often as is allowed.

    Raises:
        MegaptError: the last attempt has failed too. It is of the kind that the attempts tell of,
            but unreachable if any of them was: then nothing is known for certain.
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
                raise fault(_last_word(str(error), retry + 1, unreachable)) from None
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


def _last_word(text: str, attempts: int, unreachable: bool) -> str:
    times = "once" if attempts == 1 else f"{attempts} times"
    remedy = "" if unreachable else "copy the file anew or build the corpus again; "
    return (
        f"{text} (tried {times}); {remedy}"
        "data.reading.max_retries and data.reading.timeout set how long it is tried"
    )
