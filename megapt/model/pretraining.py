"""Trunk and heads together: from a batch to the loss of every part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from megapt.config import LossConfig, ModelConfig
from megapt.config.updates import Recompute
from megapt.data import Batch, HeadSpec
from megapt.model.attention import Backend, GroupedAttention, Prepared
from megapt.model.generator import Generator
from megapt.model.heads import make_head
from megapt.model.initialization import initialize
from megapt.model.linear_cross_entropy import Losses
from megapt.model.sequence import SequenceGroup
from megapt.model.trunk import Computation, Transformer


class PartSums(NamedTuple):
    """Of one part of the loss, over its targets in a batch; float32 scalars without a graph."""

    nll: Tensor
    """Weighted sum of the plain cross-entropy, -log P(label)."""
    correct: Tensor
    """Targets whose most likely label is the right one."""


class ModelOutput(NamedTuple):
    """What the model makes of a batch."""

    loss: Tensor
    """Sum over all parts and targets of factor * weight * (cross-entropy and the terms of
    `LossConfig`), float32 scalar; differentiable."""
    parts: dict[str, PartSums]


class _Asked:
    """The targets of all parts of one module that this rank answers, end to end.

    If there are none, one position is asked with weight 0: all ranks compute the same graph.

    Args:
        batch: with targets, maybe none, of every part.
        parts: of the module.
        factors: part -> what its losses are multiplied with; by default 1.
        sequence: the ranks that share them.
    """

    def __init__(
        self,
        batch: Batch,
        parts: Sequence[str],
        factors: Mapping[str, float] | None,
        sequence: SequenceGroup,
    ) -> None:
        targets = [sequence.share(batch.targets[part]) for part in parts]
        self.sizes = dict(zip(parts, map(len, targets), strict=True))
        self.count = sum(self.sizes.values())
        one = torch.zeros(0 if self.count else 1, device=batch.tokens.device)
        nowhere = one.to(torch.int64)
        weights = [
            torch.ones(len(target), device=one.device) if target.weights is None else target.weights
            for target in targets
        ]
        scaled = [
            weight * (1.0 if factors is None else factors[part])
            for part, weight in zip(parts, weights, strict=True)
        ]
        drawn = [target.draws for target in targets if target.draws is not None]
        self.places = torch.cat([target.places for target in targets] + [nowhere])
        self.labels = torch.cat([target.labels for target in targets] + [nowhere])
        self.weights = torch.cat([*weights, one])
        self.scaled = torch.cat([*scaled, one])
        """Weights times factors."""
        self.draws = torch.cat([*drawn, one])

    def sums(self, losses: Losses) -> dict[str, PartSums]:
        """Return the sums of each part."""
        sums, start = {}, 0
        for part, size in self.sizes.items():
            mine = slice(start, start + size)
            nll = (self.weights[mine] * losses.nll[mine]).sum()
            sums[part] = PartSums(nll, losses.correct[mine].sum())
            start += size
        return sums


class PretrainingModel(nn.Module):
    """The one model of all objectives; only its heads differ.

    Args:
        config: of the model.
        heads: what the objective asks for. Parts of one module are of one kind.
        loss: terms of the loss of heads over the vocabulary beside the cross-entropy.
        vocabulary: number of token ids.
        max_positions: position ids are below this.
        seed: of the initial weights.
        attention: how attention is computed; no weight depends on it, nor on what follows.
        recompute: what the backward pass computes again.
        recompute_every: of so many blocks one is.
        sequence: the ranks that share the positions of each batch; None if each has its own.
    """

    def __init__(
        self,
        config: ModelConfig,
        heads: Sequence[HeadSpec],
        *,
        vocabulary: int,
        max_positions: int,
        loss: LossConfig = LossConfig(),
        seed: int = 0,
        attention: type[Backend] = GroupedAttention,
        recompute: Recompute = "none",
        recompute_every: int = 1,
        sequence: SequenceGroup | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.sequence = sequence or SequenceGroup()
        self.how = how = Computation(attention, recompute, recompute_every, self.sequence)
        self.trunk = Transformer(config, vocabulary, max_positions, how)
        words = self.trunk.embeddings.words
        self.heads, self.generators = nn.ModuleDict(), nn.ModuleDict()
        self.parts: dict[str, list[str]] = {}
        """Module -> the parts that it computes."""
        for spec in heads:
            if spec.owner in self.parts:
                self.parts[spec.owner].append(spec.name)
                continue
            self.parts[spec.owner] = [spec.name]
            if spec.kind == "generator":
                self.generators[spec.owner] = Generator(config, words, loss, spec.scale, how)
            else:
                self.heads[spec.owner] = make_head(spec, config, words, loss)
        self.detections = [spec.name for spec in heads if spec.kind == "detection"]
        initialize(self, config, seed)

    def _generate(
        self, batch: Batch, prepared: Prepared, factors: Mapping[str, float] | None = None
    ) -> tuple[Batch, list[tuple[_Asked, Losses]]]:
        """Return the batch that the trunk reads, and what the generators made of `batch`.

        Their samples stand where they were asked, and detection is asked which tokens were
        replaced: a sample that is the right token was not (Clark et al. 2020, section 3.1).
        """
        results: list[tuple[_Asked, Losses]] = []
        changes, replaced = torch.zeros_like(batch.tokens), torch.zeros_like(batch.tokens)
        for name, generator in self.generators.items():
            if not batch.targets.keys() >= set(self.parts[name]):
                continue  # Of a trained model something else is asked.
            asked = _Asked(batch, self.parts[name], factors, self.sequence)
            losses: Losses = generator(
                self.trunk.embed(batch),
                batch,
                prepared,
                asked.places,
                asked.labels,
                asked.scaled,
                asked.draws,
            )
            assert losses.samples is not None  # there are draws
            places, samples = asked.places[: asked.count], losses.samples[: asked.count]
            changes[places] = samples - batch.tokens[places]
            replaced[places] = (samples != asked.labels[: asked.count]).to(replaced.dtype)
            results.append((asked, losses))
        # Each rank has sampled its share; all read the same text.
        tokens = batch.tokens + self.sequence.sum(changes)
        replaced = self.sequence.sum(replaced)
        targets = dict(batch.targets)
        for part in targets.keys() & set(self.detections):
            targets[part] = replace(targets[part], labels=replaced[targets[part].places])
        return replace(batch, tokens=tokens, targets=targets), results

    def _states(
        self, batch: Batch, factors: Mapping[str, float] | None = None
    ) -> tuple[Tensor, Batch, list[tuple[_Asked, Losses]]]:
        """Return the trunk's states [N, hidden], the batch that it read, and `_generate`'s results.

        What attention prepares of a batch serves the generators and the trunk, and ends with them.
        """
        if not self.generators:
            return self.trunk(batch), batch, []
        prepared = self.how.prepare(batch)
        batch, results = self._generate(batch, prepared, factors)
        return self.trunk(batch, prepared), batch, results

    def predict(self, batch: Batch, head: str) -> Tensor:
        """Return the logits of one module at `batch.targets[head]`, float32 [targets, classes].

        A head on the trunk sees the text as in training: with the samples of the generators that
        the batch asks something.
        """
        places = batch.targets[head].places
        module: Any
        if head in self.generators:
            module, states = self.generators[head], self.trunk.embed(batch)
        else:
            module = self.heads[head]
            states, batch, _ = self._states(batch)
        logits: Tensor = module.logits(states, batch, places)
        return logits.float()

    def forward(self, batch: Batch, factors: Mapping[str, float] | None = None) -> ModelOutput:
        """Return the loss and the sums of every part.

        Heads run on the target positions only, each module once for all of its parts. Of ranks
        that share positions each answers a share of the targets: loss and sums add up over them.

        Args:
            batch: with targets, maybe none, of every part.
            factors: part -> what its losses are multiplied with; by default 1.
        """
        states, batch, results = self._states(batch, factors)
        for name, head in self.heads.items():
            asked = _Asked(batch, self.parts[name], factors, self.sequence)
            results.append((asked, head(states, batch, asked.places, asked.labels, asked.scaled)))
        parts: dict[str, PartSums] = {}
        for asked, losses in results:
            parts.update(asked.sums(losses))
        return ModelOutput(torch.stack([losses.loss for _, losses in results]).sum(), parts)
