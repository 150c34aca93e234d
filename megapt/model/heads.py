"""Heads: distributions over the vocabulary or over classes, computed only at the targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from megapt.config import LossConfig, ModelConfig
from megapt.data import Batch, HeadSpec
from megapt.model.linear_cross_entropy import Losses, VocabularyProjection
from megapt.model.trunk import make_norm


class Head(nn.Module, ABC):
    """Predicts a label at each of the given places from the states there."""

    @abstractmethod
    def logits(self, states: Tensor, batch: Batch, places: Tensor) -> Tensor:
        """Return logits [t, classes] at `places`, int64 [t], of states [N, hidden]."""

    def forward(
        self, states: Tensor, batch: Batch, places: Tensor, labels: Tensor, weights: Tensor
    ) -> Losses:
        """Return the cross-entropy losses of labels int64 [t] with weights float32 [t]."""
        logits = self.logits(states, batch, places).float()
        nll = functional.cross_entropy(logits, labels, reduction="none")
        correct = (logits.detach().argmax(dim=-1) == labels).float()
        return Losses((weights * nll).sum(), nll.detach(), correct)


class TokenHead(Head):
    """Projects states to the vocabulary with the word embedding (tied) or a separate matrix.

    A transform may precede the projection, as in BERT: a dense layer, GELU, and the model's norm.
    The loss has the terms of `LossConfig`.

    Args:
        config: the model's configuration.
        words: the word embedding of the trunk.
        terms: terms of the loss in addition to the cross-entropy.
        width: width of the states if it differs from the model's; the transform then projects them
            to the model's width.
    """

    def __init__(
        self, config: ModelConfig, words: nn.Embedding, terms: LossConfig, width: int | None = None
    ) -> None:
        super().__init__()
        self.transform: nn.Module = nn.Identity()
        if width is not None or config.token_head == "transform":
            self.transform = nn.Sequential(
                OrderedDict(
                    dense=nn.Linear(
                        width or config.hidden_size, config.hidden_size, bias=config.bias
                    ),
                    activation=nn.GELU(),
                    norm=make_norm(config),
                )
            )
        self.projection = VocabularyProjection(config, words, terms)

    def logits(self, states: Tensor, batch: Batch, places: Tensor) -> Tensor:
        """Return logits [t, vocabulary]; see `Head`."""
        logits: Tensor = self.projection(self.transform(states.index_select(0, places)))
        return logits

    def forward(
        self,
        states: Tensor,
        batch: Batch,
        places: Tensor,
        labels: Tensor,
        weights: Tensor,
        draws: Tensor | None = None,
    ) -> Losses:
        """Return the losses, and samples if there are draws; see `linear_cross_entropy`."""
        losses: Losses = self.projection(
            self.transform(states.index_select(0, places)), labels, weights, draws
        )
        return losses


class ClassHead(Head):
    """A dense layer, an activation, and a projection to classes.

    With tanh it is BERT's pooler and classifier. With GELU and two classes it is ELECTRA's
    discriminator (Clark et al. 2020): the softmax over two classes is the sigmoid of the difference
    of their logits.
    """

    def __init__(
        self, config: ModelConfig, classes: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = activation
        self.projection = nn.Linear(config.hidden_size, classes)

    def logits(self, states: Tensor, batch: Batch, places: Tensor) -> Tensor:
        """Return logits [t, classes]; see `Head`."""
        logits: Tensor = self.projection(
            self.activation(self.dense(states.index_select(0, places)))
        )
        return logits


def segment_means(states: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return the mean state of segments 0 and 1 of every example.

    Args:
        states: [N, hidden].
        batch: the batch of these states.

    Returns:
        The place of each example's first position, int64 [examples], and the means,
        [examples, 2, hidden]; zero for a segment that the example does not have.
    """
    padded = functional.pad(states, (0, 0, 0, 1))
    segments = functional.pad(batch.segments, (0, 1), value=-1)
    firsts, means = [], []
    for group in batch.groups:
        rows, segment = padded[group], segments[group]
        shares = torch.stack([segment == 0, segment == 1], dim=1).to(rows.dtype)
        shares = shares / shares.sum(dim=-1, keepdim=True).clamp(min=1)
        firsts.append(group[:, 0])
        means.append(shares @ rows)
    return torch.cat(firsts), torch.cat(means)


class PairHead(Head):
    """Compares the mean states u, v of two segments: [u, v, |u - v|, u * v] (Conneau et al. 2017).

    The product of the two is available from the start of training; a head that reads one position
    first has to learn it.
    """

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.projection = nn.Linear(4 * config.hidden_size, classes)

    def logits(self, states: Tensor, batch: Batch, places: Tensor) -> Tensor:
        """Return logits [t, classes] of the examples whose first places are `places`, int64 [t]."""
        firsts, means = segment_means(states, batch)
        number = torch.zeros(len(states), dtype=torch.int64, device=states.device)
        number[firsts] = torch.arange(len(firsts), device=states.device)
        u, v = self.dense(means[number[places]]).unbind(dim=1)
        logits: Tensor = self.projection(torch.cat([u, v, (u - v).abs(), u * v], dim=-1))
        return logits


def make_head(spec: HeadSpec, config: ModelConfig, words: nn.Embedding, terms: LossConfig) -> Head:
    """Return the head on the trunk that `spec` describes; not for generators."""
    if spec.kind == "token":
        return TokenHead(config, words, terms)
    if spec.kind == "pair":
        return PairHead(config, spec.classes)
    activation = functional.gelu if spec.kind == "detection" else torch.tanh
    return ClassHead(config, spec.classes, activation)
