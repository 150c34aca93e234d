"""Periodic orders of corpora that hold whole shares as exactly as any order can."""

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
    """Return the fraction that the decimal digits say: 0.7 is 7/10, not the nearest double."""
    return Fraction(str(number))


def whole_shares(weights: Sequence[Fraction]) -> list[int]:
    """Return whole numbers in the ratio of `weights`, one above 0 for each weight above 0.

    They add up to the least common denominator of the weights once these are divided by their sum,
    but to `DENOMINATOR` if that one is larger: then they are rounded, by the largest remainder.
    """
    total = sum(weights)
    weights = [weight / total for weight in weights]
    common = math.lcm(*(weight.denominator for weight in weights))
    if common <= DENOMINATOR:
        return [int(weight * common) for weight in weights]
    # Corpora due less than one entry get one. That leaves less for the others, of which some more
    # may then be due less than one.
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
        shares: entries of each corpus in a period, with no common divisor, int64 [corpora].
    """

    def __init__(self, shares: Ints) -> None:
        self.shares = shares
        self.period = int(shares.sum())
        # Entries are counted from 1 and the windows of a corpus from 0. With slack 2k-2, weight w
        # and `seen` windows of a corpus so far, its next one may become entry n once
        # w n - seen >= 1 / slack, and must be there at the first n at which
        # w n - seen > 1 - 1 / slack. Tijdeman proves that some order keeps all these dates. Then
        # the earliest deadline first keeps them too, as it does for any jobs of one entry each.
        # At the end of the period the counts must be whole, so exact, and all begins again.
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
        taken = 0
        for released in np.searchsorted(release[by_release], entries, side="right").tolist():
            for job in jobs[taken:released]:
                heappush(waiting, job)
            taken = released
            order.append(heappop(waiting))
        # Narrow types, for there may be as many patterns as stages and corpora together.
        self.order = (np.array(order) % len(shares)).astype(np.uint16)
        """Corpus of each entry, uint16 [period]."""
        self.seen = np.empty(self.period, dtype=np.int32)
        """Entries of the same corpus before this one in the period, int32 [period]."""
        self.seen[np.argsort(self.order, kind="stable")] = seen

    def locate(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Return for each entry its corpus and how many entries of that corpus precede it."""
        periods, entries = np.divmod(numbers, self.period)
        corpora = self.order[entries].astype(np.int64)
        return corpora, periods * self.shares[corpora] + self.seen[entries]

    def counts(self, n: int) -> Ints:
        """Return how many of the first `n` entries each corpus has, int64 [corpora]."""
        periods, entries = divmod(n, self.period)
        return periods * self.shares + np.bincount(self.order[:entries], minlength=len(self.shares))

    def length(self, corpus: int, count: int) -> int:
        """Return how many entries it takes until `corpus` has had `count`, at least 1, of them."""
        periods, seen = divmod(count - 1, int(self.shares[corpus]))
        return periods * self.period + int(np.flatnonzero(self.order == corpus)[seen]) + 1
