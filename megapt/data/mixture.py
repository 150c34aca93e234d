"""Computes from the weights which corpus each window of a run comes from.

A mixture is divided into *segments* of constant weights. A segment begins with each stage of the
schedule, and where a corpus has used up its epochs. Inside a segment the weights are exact
fractions with a common denominator D, and the corpora follow a pattern of D entries that repeats
without end. So any window number is located without a walk through those before it.

The first n windows of a segment hold n times the weight of each corpus within 1 - 1/(2k-2)
windows, where k >= 2 is the number of corpora with a weight above 0 (Tijdeman 1980, "The chairman
assignment problem", Discrete Mathematics 32). The common method, which gives each window to the
corpus that is furthest behind, has no such bound: with weights of 1:1:1:3:3:3 it is off by a whole
window.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from megapt.data.pattern import Ints, Pattern, exact, whole_shares
from megapt.errors import ConfigError

_NEVER = np.iinfo(np.int64).max
"""End of the last stage, above all window numbers."""


@dataclass(frozen=True)
class Member:
    """A corpus in a mixture.

    Raises:
        ValueError: if `max_epochs` is not a positive number.
        ConfigError: if it has no windows, or `max_epochs` allows none.
    """

    name: str
    windows: int
    """Windows in one epoch, at least 1."""
    max_epochs: float | None = None
    """Epochs after which the corpus is excluded; None: no limit."""

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise ConfigError(f"corpus '{self.name}': has no windows; remove it from the mixture")
        if self.max_epochs is not None and not 0 < self.max_epochs < math.inf:
            raise ValueError(
                f"corpus '{self.name}': max_epochs is {self.max_epochs}; "
                "give a number above 0, or none for no limit"
            )
        if self.cap == 0:
            raise ConfigError(
                f"corpus '{self.name}': max_epochs of {self.max_epochs} allows none of its "
                f"{self.windows} windows; give weight 0 to exclude the corpus"
            )

    @property
    def cap(self) -> int | None:
        """Maximum number of windows from this corpus; None: no limit."""
        if self.max_epochs is None:
            return None
        return int(exact(self.max_epochs) * self.windows)


@dataclass(frozen=True)
class Stage:
    """Weights that hold from a given window."""

    start: int
    """Number of the first window under these weights."""
    weights: tuple[float, ...]
    """One weight per corpus, at least 0; only their ratios matter."""


def temperature_weights(tokens: Sequence[int], temperature: float) -> tuple[float, ...]:
    """Return weights that add up to 1 and are proportional to tokens^(1 / temperature).

    1 keeps the proportions of the corpora; a higher temperature makes the weights more equal
    (Raffel et al. 2020, T5, section 3.5.2; XLM-R of Conneau et al. 2020 writes alpha for
    1 / temperature).

    Args:
        tokens: size of each corpus, at least 1.
        temperature: at least 1.

    Raises:
        ValueError: if a size or the temperature is out of range.
    """
    if not 1 <= temperature < math.inf:
        raise ValueError(
            f"temperature is {temperature}; give 1 (weights in proportion to tokens) or more "
            "(more equal weights; an exponent of 0.3 is a temperature of 1 / 0.3)"
        )
    if min(tokens) < 1:
        raise ValueError(f"corpus number {np.argmin(tokens)}: {min(tokens)} tokens; give 1 or more")
    largest = max(tokens)
    relative = [(size / largest) ** (1 / temperature) for size in tokens]
    total = math.fsum(relative)
    return tuple(weight / total for weight in relative)


@dataclass(frozen=True)
class _Segment:
    """A range of windows with constant weights."""

    start: int
    before: Ints
    """Windows of each corpus before this segment, int64 [corpora]."""
    pattern: Pattern


class Mixture:
    """The sequence of windows drawn from several corpora by weight.

    After a corpus has used up its `max_epochs`, the others continue with renormalized weights.
    When no corpus with a weight above 0 is left, the mixture ends.

    Args:
        members: the corpora.
        stages: the weights, by increasing start; the first starts at 0. Counts of windows carry
            over from stage to stage.

    Raises:
        ValueError: if the stages do not fit together or hold invalid weights.
        ConfigError: if all weights of a stage are 0.
    """

    total: int | None
    """Windows in the mixture; None: no end."""

    def __init__(self, members: Sequence[Member], stages: Sequence[Stage]) -> None:
        self.members = tuple(members)
        _check(self.members, stages)
        self._segments: list[_Segment] = []
        self.total = self._plan(stages)
        self._starts = np.array([segment.start for segment in self._segments], dtype=np.int64)

    def _plan(self, stages: Sequence[Stage]) -> int | None:
        """Make the segments and return `total`."""
        counts = np.zeros(len(self.members), dtype=np.int64)
        start = 0
        stops = [*(stage.start for stage in stages[1:]), _NEVER]
        for stage, stop in zip(stages, stops, strict=True):
            shares = whole_shares([exact(weight) for weight in stage.weights])
            while start < stop:
                room = {
                    corpus: member.cap - int(counts[corpus])
                    for corpus, member in enumerate(self.members)
                    if member.cap is not None and shares[corpus]
                }
                active = [0 if room.get(corpus) == 0 else n for corpus, n in enumerate(shares)]
                if not any(active):
                    return start
                pattern = Pattern(np.array(active, dtype=np.int64) // math.gcd(*active))
                self._segments.append(_Segment(start, counts, pattern))
                used_up = [start + pattern.length(c, left) for c, left in room.items() if left]
                end = min([stop, *used_up])
                counts = counts + pattern.counts(end - start)
                start = end
        return None

    def _check_range(self, first: int, last: int) -> None:
        if first < 0:
            raise ValueError(f"window {first}: the windows of a mixture are numbered from 0")
        if self.total is not None and last >= self.total:
            raise ConfigError(
                f"window {last}: the mixture ends after {self.total} windows, when every corpus "
                "that has a weight has used up its max_epochs; raise one or request fewer windows"
            )

    def locate(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Return where windows come from, at a cost that does not depend on their numbers.

        Args:
            numbers: window numbers in any order, int64 [windows].

        Returns:
            The corpus of each window, and its number in the endless sequence of that corpus; both
            int64 [windows].

        Raises:
            ValueError: if a number is negative.
            ConfigError: if a number is beyond the end of the mixture.
        """
        if numbers.size:
            self._check_range(int(numbers.min()), int(numbers.max()))
        segments = np.searchsorted(self._starts, numbers, side="right") - 1
        corpora = np.empty(numbers.shape, dtype=np.int64)
        places = np.empty(numbers.shape, dtype=np.int64)
        for index in np.unique(segments):
            segment, inside = self._segments[index], segments == index
            corpus, place = segment.pattern.locate(numbers[inside] - segment.start)
            corpora[inside] = corpus
            places[inside] = segment.before[corpus] + place
        return corpora, places

    def _segment(self, number: int) -> _Segment:
        return self._segments[bisect_right(self._segments, number, key=lambda s: s.start) - 1]

    def counts(self, n: int) -> Ints:
        """Return the number of windows of each corpus in the first `n`, int64 [corpora].

        Raises:
            ValueError: if `n` is negative.
            ConfigError: if the mixture has fewer than `n` windows.
        """
        self._check_range(n, n - 1)
        segment = self._segment(n)
        return segment.before + segment.pattern.counts(n - segment.start)

    def epochs(self, n: int) -> NDArray[np.float64]:
        """Return the epochs of each corpus in the first `n` windows, float64 [corpora]."""
        epochs: NDArray[np.float64] = self.counts(n) / [member.windows for member in self.members]
        return epochs

    def weights(self, n: int) -> tuple[Fraction, ...]:
        """Return the weights at window `n` as they are used: rounded and renormalized."""
        self._check_range(n, n)
        pattern = self._segment(n).pattern
        return tuple(Fraction(share, pattern.period) for share in pattern.shares.tolist())


def _check(members: Sequence[Member], stages: Sequence[Stage]) -> None:
    if not members:
        raise ValueError("the mixture has no corpus; give at least one")
    starts = [stage.start for stage in stages]
    if starts[:1] != [0]:
        raise ValueError(
            f"the stages of the mixture start at windows {starts}; the first must be 0"
        )
    if any(after <= before for before, after in pairwise(starts)):
        raise ValueError(f"the stages of the mixture start at windows {starts}; they must increase")
    names = ", ".join(f"'{member.name}'" for member in members)
    for stage in stages:
        where = f"mixture from window {stage.start}"
        if len(stage.weights) != len(members):
            raise ValueError(
                f"{where}: {len(stage.weights)} weights for {len(members)} corpora ({names}); "
                "give one for each"
            )
        for member, weight in zip(members, stage.weights, strict=True):
            if not 0 <= weight < math.inf:
                raise ValueError(
                    f"{where}: corpus '{member.name}' has weight {weight}; "
                    "give 0 or a positive number"
                )
        if not any(stage.weights):
            raise ConfigError(
                f"{where}: all of {names} have weight 0; give at least one a positive weight"
            )
