"""Trunk and heads together: from a batch to the loss of every head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from megapt.config import AttentionBackend, ModelConfig
from megapt.data import Batch, HeadSpec
from megapt.model.heads import make_head
from megapt.model.initialisation import initialise
from megapt.model.trunk import Transformer


class PretrainingModel(nn.Module):
    """The one model of all objectives; only its heads differ.

    Args:
        config: of the model.
        heads: what the objective asks for.
        vocabulary: number of token ids.
        max_positions: position ids are below this.
        seed: of the initial weights.
        attention: how attention is computed; no weight depends on it.
    """

    def __init__(
        self,
        config: ModelConfig,
        heads: Sequence[HeadSpec],
        *,
        vocabulary: int,
        max_positions: int,
        seed: int = 0,
        attention: AttentionBackend = "grouped",
    ) -> None:
        super().__init__()
        self.config = config
        self.trunk = Transformer(config, vocabulary, max_positions, attention)
        words = self.trunk.embeddings.words
        self.heads = nn.ModuleDict({spec.name: make_head(spec, config, words) for spec in heads})
        initialise(self, config, seed)

    def predict(self, batch: Batch, head: str) -> Tensor:
        """Return the logits of one head at its targets, float32 [targets, classes]."""
        states = self.trunk(batch)
        logits: Tensor = self.heads[head](states, batch.targets[head][0], batch)
        return logits.float()

    def forward(self, batch: Batch) -> dict[str, tuple[Tensor, Tensor]]:
        """Return for every head (loss sum, correct), float32 scalars.

        The loss sum is that of -log P(label) in nats over the head's targets in the batch, and
        differentiable; `correct` counts the targets whose most likely label is the right one.
        The heads run on the target positions only. A head without a target in this batch reads
        one position with weight 0, so that all ranks compute the same graph.
        """
        states = self.trunk(batch)
        results = {}
        for name, head in self.heads.items():
            places, labels = batch.targets[name]
            count = len(labels)
            if not count:
                places = labels = torch.zeros(1, dtype=torch.int64, device=states.device)
            logits = head(states, places, batch).float()
            weight = 1.0 if count else 0.0
            loss_sum = weight * functional.cross_entropy(logits, labels, reduction="sum")
            correct = weight * (logits.detach().argmax(dim=-1) == labels).float().sum()
            results[name] = (loss_sum, correct)
        return results
