"""The loss of a step from the sums of its parts, normalized over the whole step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from megapt.data import Batch, HeadSpec
from megapt.data.example import member_of
from megapt.distributed.ranks import Ranks
from megapt.model import PartSums


@dataclass(frozen=True)
class Totals:
    """Sizes and window counts of each part in the whole step, over all ranks and micro-batches."""

    sizes: Sequence[float]
    """See `HeadTargets.size`."""
    windows: Sequence[float]
    """See `HeadTargets.windows`."""


def count_parts(batches: Iterable[Batch], heads: Sequence[HeadSpec]) -> tuple[list[float], ...]:
    """Return sizes and windows of each part over the batches."""
    sizes, windows = [0.0] * len(heads), [0.0] * len(heads)
    for batch in batches:
        for i, head in enumerate(heads):
            sizes[i] += batch.targets[head.name].size
            windows[i] += batch.targets[head.name].windows
    return sizes, windows


def _prefixes(part: str) -> list[str]:
    """Return the mixtures and members that contain a part `a/b/head`: "" (all), "a", "a/b"."""
    names = part.split("/")
    return ["/".join(names[:depth]) for depth in range(len(names))]


def factors(heads: Sequence[HeadSpec], totals: Totals) -> dict[str, float]:
    """Return the factor of each part's loss sum in the loss of the step.

    The factor is weight / size, times the shares of its members in their mixtures
    (`HeadSpec.shares`). The size is that of the whole step, not of the micro-batch: this makes the
    update independent of how the step was split. The factor of a part without targets is 0.
    """
    sizes: defaultdict[str, float] = defaultdict(float)
    windows: defaultdict[str, float] = defaultdict(float)
    leaves: set[str] = set()
    for head, size, seen in zip(heads, totals.sizes, totals.windows, strict=True):
        leaf = member_of(head.name)
        for prefix in _prefixes(head.name):
            sizes[prefix] += size
            windows[prefix] += 0.0 if leaf in leaves else seen
        leaves.add(leaf)
    found = {}
    for head, size in zip(heads, totals.sizes, strict=True):
        factor = head.weight / size if size else 0.0
        members = _prefixes(head.name)
        for depth, share in enumerate(head.shares if size else ()):
            mixture, member = members[depth : depth + 2]
            innermost = depth == len(head.shares) - 1
            if share == "windows":
                factor *= windows[member] / windows[mixture]
            elif share == "targets":
                factor *= (size if innermost else sizes[member]) / sizes[mixture]
        found[head.name] = factor
    return found


class Scores:
    """Running sums of losses and correct answers of every part.

    The results of the model are summed on their device, so that nothing waits for the device
    before `reduce`.

    Args:
        heads: the parts.
    """

    def __init__(self, heads: Sequence[HeadSpec]) -> None:
        self.heads = heads
        self._computed: Tensor | None = None
        """Loss sum and correct targets of every part, float64 [parts, 2]."""
        self._asked = [[0.0, 0.0, 0.0] for _ in heads]
        """Targets, size and windows of every part."""

    def add(self, results: Mapping[str, PartSums], batch: Batch) -> None:
        """Add the results of one batch."""
        parts = [torch.stack(results[head.name]) for head in self.heads]
        computed = torch.stack(parts).double()
        self._computed = computed if self._computed is None else self._computed + computed
        for head, sums in zip(self.heads, self._asked, strict=True):
            asked = batch.targets[head.name]
            for i, value in enumerate((len(asked), asked.size, asked.windows)):
                sums[i] += value

    def reduce(self, ranks: Ranks) -> dict[str, float]:
        """Return loss, and loss and accuracy of every part, over the targets of all ranks.

        Keys: `loss` (the weighted sum), `loss/PART`, `accuracy/PART`; losses are in nats,
        accuracies are shares. A part without targets counts 0 in the loss and has no entries. If
        no part has targets, the result is empty.
        """
        computed = [[0.0, 0.0]] * len(self.heads)
        if self._computed is not None:
            computed = self._computed.tolist()
        # Each of the ranks that share a batch computed a part of it, but counted all its targets.
        asked = [sums if ranks.counts else [0.0] * 3 for sums in self._asked]
        flat = ranks.sum(
            [value for pair in zip(computed, asked, strict=True) for value in chain(*pair)]
        )
        parts = [flat[start : start + 5] for start in range(0, len(flat), 5)]
        totals = Totals([part[3] for part in parts], [part[4] for part in parts])
        scores: dict[str, float] = {}
        of_part = factors(self.heads, totals)
        for head, part in zip(self.heads, parts, strict=True):
            nll, correct, count, size, _ = part
            if size:
                scores["loss"] = scores.get("loss", 0.0) + of_part[head.name] * nll
                scores[f"loss/{head.name}"] = nll / size
            if count:
                scores[f"accuracy/{head.name}"] = correct / count
        return scores
