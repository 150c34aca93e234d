"""From the sums of every head to one loss, normalised over the whole step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from megapt.data import Batch, HeadSpec
from megapt.training.distributed import Ranks

HeadSums = Mapping[str, tuple[Tensor, Tensor]]


def head_counts(batches: Iterable[Batch], heads: Sequence[HeadSpec]) -> list[int]:
    """Return the number of targets of each head over the batches."""
    counts = [0] * len(heads)
    for batch in batches:
        for i, head in enumerate(heads):
            counts[i] += len(batch.targets[head.name][1])
    return counts


def weighted_loss(sums: HeadSums, heads: Sequence[HeadSpec], totals: Sequence[float]) -> Tensor:
    """Return sum_h weight_h * loss_sum_h / total_h, the share of these sums in the step's loss.

    Args:
        sums: of one micro-batch.
        heads: with their weights.
        totals: targets of each head in the whole step, over all ranks and micro-batches. Dividing
            by them, not by the micro-batch's own count, makes the update independent of how the
            step was split.
    """
    parts = [
        head.weight * sums[head.name][0] / max(total, 1.0)
        for head, total in zip(heads, totals, strict=True)
    ]
    return torch.stack(parts).sum()


@dataclass
class Scores:
    """Running sums of losses and hits of every head."""

    heads: Sequence[HeadSpec]
    sums: dict[str, list[float]] = field(default_factory=dict)
    """Head -> [loss sum, correct, targets] of this rank."""

    def add(self, results: HeadSums, batch: Batch) -> None:
        """Add the results of one batch."""
        for head in self.heads:
            loss_sum, correct = results[head.name]
            mine = self.sums.setdefault(head.name, [0.0, 0.0, 0.0])
            mine[0] += float(loss_sum.detach())
            mine[1] += float(correct)
            mine[2] += len(batch.targets[head.name][1])

    def reduce(self, ranks: Ranks) -> dict[str, float]:
        """Return loss, and loss and accuracy of every head, over the targets of all ranks.

        Keys: `loss` (the weighted sum), `loss/HEAD`, `accuracy/HEAD`; nats and shares. A head
        without any target counts 0 in the loss and has no entries of its own. If no head has
        any, there are no entries at all.
        """
        flat = [value for head in self.heads for value in self.sums.get(head.name, [0.0] * 3)]
        total = ranks.sum(flat)
        scores: dict[str, float] = {}
        for i, head in enumerate(self.heads):
            loss_sum, correct, count = total[3 * i : 3 * i + 3]
            if count:
                scores["loss"] = scores.get("loss", 0.0) + head.weight * loss_sum / count
                scores[f"loss/{head.name}"] = loss_sum / count
                scores[f"accuracy/{head.name}"] = correct / count
        return scores
