"""Floating-point operations that training requires, independent of the implementation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from megapt.config import ModelConfig
from megapt.data import Counts, HeadSpec
from megapt.model.generator import generator_config


def _stack(config: ModelConfig, counts: Counts) -> int:
    """Return the multiplications of a stack of blocks, including attention."""
    gates = 3 if config.activation == "swiglu" else 2
    block = 4 * config.hidden_size**2 + gates * config.hidden_size * config.intermediate_size
    return config.num_layers * (block * counts.positions + 2 * config.hidden_size * counts.pairs)


def _prediction(head: HeadSpec, config: ModelConfig, vocabulary: int) -> int:
    """Return the multiplications of one prediction."""
    width = config.hidden_size
    if head.kind == "token":
        transform = width if config.token_head == "transform" else 0
        return width * (transform + vocabulary)
    if head.kind == "generator":
        return width * (generator_config(config, head.scale).hidden_size + vocabulary)
    if head.kind == "pair":
        return width * (2 * width + 4 * head.classes)
    return width * (width + head.classes)


def training_flops(
    config: ModelConfig, heads: Sequence[HeadSpec], counts: Counts, vocabulary: int
) -> float:
    """Return the model FLOPs of a forward and a backward pass over `counts`.

    A multiplication and an addition count as two operations, and the backward pass as twice the
    forward pass (Kaplan et al. 2020, section 2.1; Chowdhery et al. 2022, appendix B). The count
    covers the matrix products of all blocks, including those of generators, on all positions;
    attention on the pairs that its mask allows; and the heads on their targets. All targets over
    the vocabulary count as those of the most expensive head over the vocabulary, and all targets
    over classes as those of the most expensive head over classes. Recomputation is not counted.
    """
    products = _stack(config, counts)
    for scale in {head.owner: head.scale for head in heads if head.kind == "generator"}.values():
        small = generator_config(config, scale)
        products += (
            _stack(small, counts) + config.hidden_size * small.hidden_size * counts.positions
        )

    def most_expensive(candidates: Iterable[HeadSpec]) -> int:
        return max((_prediction(head, config, vocabulary) for head in candidates), default=0)

    over_tokens = [head for head in heads if head.over_vocabulary]
    over_classes = [head for head in heads if not head.over_vocabulary]
    products += most_expensive(over_tokens) * counts.token_targets
    products += most_expensive(over_classes) * (counts.targets - counts.token_targets)
    return 6.0 * products
