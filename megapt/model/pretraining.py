"""The pretraining model: trunk and heads, from a batch to the loss of every part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from megapt.config import LossConfig, ModelConfig
from megapt.config.training import Recompute
from megapt.data import Batch, HeadSpec
from megapt.model.attention import Backend, GroupedAttention, Prepared
from megapt.model.generator import Generator
from megapt.model.heads import make_head
from megapt.model.initialization import initialize
from megapt.model.linear_cross_entropy import Losses
from megapt.model.sequence import SequenceGroup
from megapt.model.trunk import Computation, Transformer


class PartSums(NamedTuple):
    """Sums of one part of the loss over its targets in a batch; float32 scalars without a graph."""

    nll: Tensor
    """Weighted sum of the plain cross-entropy, -log P(label)."""
    correct: Tensor
    """Number of targets whose most likely label is correct."""


class ModelOutput(NamedTuple):
    """The loss of a batch, and its parts."""

    loss: Tensor
    """Sum over all parts and targets of factor * weight * (cross-entropy and the terms of
    `LossConfig`), float32 scalar; differentiable."""
    parts: dict[str, PartSums]


class _ModuleTargets:
    """The targets of all parts of one module that this rank computes, concatenated.

    If there are none, position 0 is a target of weight 0: all ranks compute the same graph.

    Args:
        batch: batch with targets, possibly none, of every part.
        parts: the module's parts.
        factors: part -> factor of its losses; by default 1.
        sequence: the ranks that share the targets.
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
        filler = torch.zeros(0 if self.count else 1, device=batch.tokens.device)
        filler_index = filler.to(torch.int64)
        weights = [
            torch.ones(len(target), device=filler.device)
            if target.weights is None
            else target.weights
            for target in targets
        ]
        scaled = [
            weight * (1.0 if factors is None else factors[part])
            for part, weight in zip(parts, weights, strict=True)
        ]
        drawn = [target.draws for target in targets if target.draws is not None]
        self.places = torch.cat([target.places for target in targets] + [filler_index])
        self.labels = torch.cat([target.labels for target in targets] + [filler_index])
        self.weights = torch.cat([*weights, filler])
        self.scaled = torch.cat([*scaled, filler])
        """Weights times factors."""
        self.draws = torch.cat([*drawn, filler])

    def sums(self, losses: Losses) -> dict[str, PartSums]:
        """Return the sums of each part."""
        sums, start = {}, 0
        for part, size in self.sizes.items():
            span = slice(start, start + size)
            nll = (self.weights[span] * losses.nll[span]).sum()
            sums[part] = PartSums(nll, losses.correct[span].sum())
            start += size
        return sums


class PretrainingModel(nn.Module):
    """The model of all objectives; only the heads differ.

    The weights do not depend on `attention` or on the arguments after it.

    Args:
        config: the model's configuration.
        heads: heads of the objective. Parts of one module are of one kind.
        vocabulary: number of token ids.
        max_positions: limit of the position ids, exclusive.
        loss: terms of the loss of heads over the vocabulary in addition to the cross-entropy.
        seed: seed of the initial weights.
        attention: attention backend.
        recompute: what the backward pass recomputes.
        recompute_every: recomputation applies to the first of every `recompute_every` blocks.
        sequence: the ranks that share the positions of each batch; None for a single rank.
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
        self.computation = Computation(attention, recompute, recompute_every, self.sequence)
        self.trunk = Transformer(config, vocabulary, max_positions, self.computation)
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
                self.generators[spec.owner] = Generator(
                    config, words, loss, spec.scale, self.computation
                )
            else:
                self.heads[spec.owner] = make_head(spec, config, words, loss)
        self.detections = [spec.name for spec in heads if spec.kind == "detection"]
        initialize(self, config, seed)

    def _generate(
        self, batch: Batch, prepared: Prepared, factors: Mapping[str, float] | None = None
    ) -> tuple[Batch, list[tuple[_ModuleTargets, Losses]]]:
        """Return the batch that the trunk reads, and the generators' targets and losses.

        In this batch the generators' samples replace the tokens at their targets. The labels of
        detection are 1 where a token was replaced. A sample that equals the original token is not
        a replacement (Clark et al. 2020, section 3.1).
        """
        results: list[tuple[_ModuleTargets, Losses]] = []
        changes, replaced = torch.zeros_like(batch.tokens), torch.zeros_like(batch.tokens)
        for name, generator in self.generators.items():
            if not batch.targets.keys() >= set(self.parts[name]):
                continue  # A trained model can be evaluated on other targets alone.
            targets = _ModuleTargets(batch, self.parts[name], factors, self.sequence)
            losses: Losses = generator(
                self.trunk.embed(batch),
                batch,
                prepared,
                targets.places,
                targets.labels,
                targets.scaled,
                targets.draws,
            )
            assert losses.samples is not None  # Targets of generators have draws.
            places, samples = targets.places[: targets.count], losses.samples[: targets.count]
            changes[places] = samples - batch.tokens[places]
            replaced[places] = (samples != targets.labels[: targets.count]).to(replaced.dtype)
            results.append((targets, losses))
        # Each rank has sampled only its share of the targets; all must read the same text.
        tokens = batch.tokens + self.sequence.sum(changes)
        replaced = self.sequence.sum(replaced)
        labeled = dict(batch.targets)
        for part in labeled.keys() & set(self.detections):
            labeled[part] = replace(labeled[part], labels=replaced[labeled[part].places])
        return replace(batch, tokens=tokens, targets=labeled), results

    def _states(
        self, batch: Batch, factors: Mapping[str, float] | None = None
    ) -> tuple[Tensor, Batch, list[tuple[_ModuleTargets, Losses]]]:
        """Return the trunk's states [N, hidden], the batch that it read, and `_generate`'s results.

        Generators and trunk share the prepared attention of the batch.
        """
        if not self.generators:
            return self.trunk(batch), batch, []
        prepared = self.computation.prepare(batch)
        batch, results = self._generate(batch, prepared, factors)
        return self.trunk(batch, prepared), batch, results

    def predict(self, batch: Batch, head: str) -> Tensor:
        """Return the logits of module `head` at its targets, float32 [targets, classes].

        A head on the trunk reads the text as in training: samples replace the tokens at the targets
        of those generators for which the batch has targets.
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

        Heads run only on the target positions, each module once for all of its parts. Each of the
        ranks that share positions computes a share of the targets: the total loss and sums are the
        sums over these ranks.

        Args:
            batch: batch with targets, possibly none, of every part.
            factors: part -> factor of its losses; by default 1.
        """
        states, batch, results = self._states(batch, factors)
        for name, head in self.heads.items():
            targets = _ModuleTargets(batch, self.parts[name], factors, self.sequence)
            losses = head(states, batch, targets.places, targets.labels, targets.scaled)
            results.append((targets, losses))
        parts: dict[str, PartSums] = {}
        for targets, losses in results:
            parts.update(targets.sums(losses))
        return ModelOutput(torch.stack([losses.loss for _, losses in results]).sum(), parts)
