"""Which corpus each window of a run comes from: pure arithmetic on the weights.

A mixture is cut into *segments*, in which the weights stay the same: one begins with each stage of
the schedule, and one where a corpus has used up its epochs. Inside a segment the weights are exact
fractions with a common denominator D, and the corpora follow each other in a pattern of D entries,
repeated for ever; so any window number is located without a walk through those before it.

In the pattern the first n windows of a segment hold n times the weight of each corpus within
1 - 1/(2k-2) windows, k >= 2 being the corpora that have a weight (Tijdeman 1980, "The chairman
assignment problem", Discrete Mathematics 32). To give each window to the corpus that is furthest
behind, as is common, keeps no such promise: weights of 1:1:1:3:3:3 are then a whole window off.
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
"""No window has this number: where the last stage stops."""


@dataclass(frozen=True)
class Member:
    """A corpus in a mixture.

    Raises:
        ValueError: if `max_epochs` is no positive number.
        ConfigError: if no window may come from it.
    """

    name: str
    windows: int
    """Windows in one epoch, at least 1."""
    max_epochs: float | None = None
    """Epochs after which the corpus is left out; None: never."""

    def __post_init__(self) -> None:
        if self.windows < 1:
            raise ConfigError(f"corpus '{self.name}': has no windows; leave it out of the mixture")
        if self.max_epochs is not None and not 0 < self.max_epochs < math.inf:
            raise ValueError(
                f"corpus '{self.name}': max_epochs is {self.max_epochs}; "
                "give a number above 0, or none for no limit"
            )
        if self.cap == 0:
            raise ConfigError(
                f"corpus '{self.name}': max_epochs of {self.max_epochs} allows not one of its "
                f"{self.windows} windows; give weight 0 to leave the corpus out"
            )

    @property
    def cap(self) -> int | None:
        """The most windows that may come from this corpus; None: any number."""
        if self.max_epochs is None:
            return None
        return int(exact(self.max_epochs) * self.windows)


@dataclass(frozen=True)
class Stage:
    """Weights from one window number on."""

    start: int
    """Number of the first window under these weights."""
    weights: tuple[float, ...]
    """One for each corpus, at least 0; only their ratios count."""


def temperature_weights(tokens: Sequence[int], temperature: float) -> tuple[float, ...]:
    """Return weights that add up to 1 and are proportional to tokens^(1 / temperature).

    1 keeps the proportions of the corpora; the higher the temperature, the more equal the weights
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
class _Stage:
    """Windows under constant weights."""

    start: int
    before: Ints
    """Windows of each corpus before this segment, int64 [corpora]."""
    pattern: Pattern


class Mixture:
    """The sequence of windows drawn from several corpora by weight.

    Where a corpus has used up its `max_epochs`, the others go on with their weights renormalized
    from that window on. Where none is left that has a weight, the mixture ends.

    Args:
        members: the corpora.
        stages: the weights, by rising start; the first starts at 0. Counts of windows carry over
            from stage to stage.

    Raises:
        ValueError: if the stages do not fit together or hold weights that are none.
        ConfigError: if all weights of a stage are 0.
    """

    total: int | None
    """Windows in the mixture; None: endless."""

    def __init__(self, members: Sequence[Member], stages: Sequence[Stage]) -> None:
        self.members = tuple(members)
        _check(self.members, stages)
        self._segments: list[_Stage] = []
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
                live = [0 if room.get(corpus) == 0 else n for corpus, n in enumerate(shares)]
                if not any(live):
                    return start
                pattern = Pattern(np.array(live, dtype=np.int64) // math.gcd(*live))
                self._segments.append(_Stage(start, counts, pattern))
                used_up = [start + pattern.length(c, left) for c, left in room.items() if left]
                end = min([stop, *used_up])
                counts = counts + pattern.counts(end - start)
                start = end
        return None

    def _require(self, first: int, last: int) -> None:
        if first < 0:
            raise ValueError(f"window {first}: the windows of a mixture are numbered from 0")
        if self.total is not None and last >= self.total:
            raise ConfigError(
                f"window {last}: the mixture ends after {self.total} windows, when every corpus "
                "that has a weight has used up its max_epochs; raise one or ask for less"
            )

    def locate(self, numbers: Ints) -> tuple[Ints, Ints]:
        """Return where windows come from, at the same cost for any numbers.

        Args:
            numbers: window numbers in any order, int64 [windows].

        Returns:
            The corpus of each window, and its number in the endless sequence of that corpus; both
            int64 [windows].

        Raises:
            ValueError: if a number is negative.
            ConfigError: if one lies beyond the end of the mixture.
        """
        if numbers.size:
            self._require(int(numbers.min()), int(numbers.max()))
        owners = np.searchsorted(self._starts, numbers, side="right") - 1
        corpora = np.empty(numbers.shape, dtype=np.int64)
        places = np.empty(numbers.shape, dtype=np.int64)
        for owner in np.unique(owners):
            segment, mine = self._segments[owner], owners == owner
            corpus, place = segment.pattern.locate(numbers[mine] - segment.start)
            corpora[mine] = corpus
            places[mine] = segment.before[corpus] + place
        return corpora, places

    def _segment(self, number: int) -> _Stage:
        return self._segments[bisect_right(self._segments, number, key=lambda s: s.start) - 1]

    def counts(self, n: int) -> Ints:
        """Return how many of the first `n` windows come from each corpus, int64 [corpora].

        Raises:
            ValueError: if `n` is negative.
            ConfigError: if the mixture has fewer than `n` windows.
        """
        self._require(n, n - 1)
        segment = self._segment(n)
        return segment.before + segment.pattern.counts(n - segment.start)

    def epochs(self, n: int) -> NDArray[np.float64]:
        """Return the epochs of each corpus in the first `n` windows, float64 [corpora]."""
        epochs: NDArray[np.float64] = self.counts(n) / [member.windows for member in self.members]
        return epochs

    def weights(self, n: int) -> tuple[Fraction, ...]:
        """Return the weights in force at window `n`: rounded and renormalized, as used."""
        self._require(n, n)
        pattern = self._segment(n).pattern
        return tuple(Fraction(share, pattern.period) for share in pattern.shares.tolist())


def _check(members: Sequence[Member], stages: Sequence[Stage]) -> None:
    if not members:
        raise ValueError("a mixture of no corpus; give at least one")
    starts = [stage.start for stage in stages]
    if starts[:1] != [0]:
        raise ValueError(
            f"the stages of the mixture start at windows {starts}; the first must be 0"
        )
    if any(after <= before for before, after in pairwise(starts)):
        raise ValueError(f"the stages of the mixture start at windows {starts}; they must rise")
    names = ", ".join(f"'{member.name}'" for member in members)
    for stage in stages:
        where = f"mixture from window {stage.start} on"
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
            raise ConfigError(f"{where}: all of {names} have weight 0; give one of them more")
