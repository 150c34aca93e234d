"""Periodic orders of corpora that keep the shares as exactly as any order can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

DENOMINATOR = 65536
"""Weights whose least common denominator is larger are rounded to multiples of 1/65536."""


def exact(number: float) -> Fraction:
    """Return the decimal value of `number` as a fraction: 0.7 is 7/10, not the nearest double."""
    return Fraction(str(number))


def whole_shares(weights: Sequence[Fraction]) -> list[int]:
    """Return integers in the ratio of `weights`, at least 1 for each weight above 0.

    Their sum is the least common denominator of the normalized weights. If that is larger than
    `DENOMINATOR`, the sum is `DENOMINATOR` and they are rounded by the largest remainder.
    """
    total = sum(weights)
    weights = [weight / total for weight in weights]
    common = math.lcm(*(weight.denominator for weight in weights))
    if common <= DENOMINATOR:
        return [int(weight * common) for weight in weights]
    # Corpora with a quota below one entry get one. That leaves less for the others, so more quotas
    # may fall below one.
    single: set[int] = set()
    while True:
        others = sum(weight for corpus, weight in enumerate(weights) if corpus not in single)
        quotas = [
            Fraction(1) if corpus in single else weight / others * (DENOMINATOR - len(single))
            for corpus, weight in enumerate(weights)
        ]
        small = {corpus for corpus, quota in enumerate(quotas) if 0 < quota < 1}
        if not small:
            break
        single |= small
    shares = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda corpus: shares[corpus] - quotas[corpus])
    for corpus in by_remainder[: DENOMINATOR - sum(shares)]:
        shares[corpus] += 1
    return shares


class Pattern:
    """The periodic order of the corpora under constant weights.

    Args:
        shares: entries of each corpus in a period, without a common divisor, int64 [corpora].
    """

    def __init__(self, shares: Ints) -> None:
        self.shares = shares
        self.period = int(shares.sum())
        # Entries are counted from 1 and the windows of a corpus from 0. With slack 2k-2, weight w
        # and `seen` windows of a corpus so far, its next one may become entry n once
        # w n - seen >= 1 / slack, and must be entry n at the latest for the first n with
        # w n - seen > 1 - 1 / slack. Tijdeman proves that some order meets all these deadlines.
        # Then "earliest deadline first" meets them too, as for all jobs of one entry each. At the
        # end of the period the counts are integers, therefore exact, and the pattern repeats.
        slack = max(1, 2 * int(np.count_nonzero(shares)) - 2)
        corpora = np.repeat(np.arange(len(shares)), shares)
        seen = np.arange(self.period) - np.repeat(np.cumsum(shares) - shares, shares)
        scale = slack * shares[corpora]
        release = -(-self.period * (slack * seen + 1) // scale)
        deadline = self.period * (slack * (seen + 1) - 1) // scale + 1
        by_release = np.argsort(release, kind="stable")
        jobs = (deadline * len(shares) + corpora)[by_release].tolist()
        entries = np.arange(1, self.period + 1)
        order: list[int] = []
        waiting: list[int] = []
        queued = 0
        for released in np.searchsorted(release[by_release], entries, side="right").tolist():
            for job in jobs[queued:released]:
                heappush(waiting, job)
            queued = released
            order.append(heappop(waiting))
        # Narrow types, because there may be as many patterns as stages and corpora together.
        self.order = (np.array(order) % len(shares)).astype(np.uint16)
        """Corpus of each entry, uint16 [period]."""
        self.seen = np.empty(self.period, dtype=np.int32)
        """Entries of the same corpus before this one in the period, int32 [period]."""
        self.seen[np.argsort(self.order, kind="stable")] = seen

    def locate(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Return for each entry its corpus and the number of earlier entries of that corpus."""
        periods, entries = np.divmod(numbers, self.period)
        corpora = self.order[entries].astype(np.int64)
        return corpora, periods * self.shares[corpora] + self.seen[entries]

    def counts(self, n: int) -> Ints:
        """Return the number of entries of each corpus in the first `n`, int64 [corpora]."""
        periods, entries = divmod(n, self.period)
        return periods * self.shares + np.bincount(self.order[:entries], minlength=len(self.shares))

    def length(self, corpus: int, count: int) -> int:
        """Return the fewest entries that hold `count` >= 1 entries of `corpus`."""
        periods, seen = divmod(count - 1, int(self.shares[corpus]))
        return periods * self.period + int(np.flatnonzero(self.order == corpus)[seen]) + 1
