"""Generates text token by token with causal and prefix models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from megapt.data import Batch, CounterRng, Example, Rows, Targets, Vocabulary, collate
from megapt.data.example import Ints


class Predicts(Protocol):
    """The interface that generation needs from a model."""

    def predict(self, batch: Batch, head: str) -> Tensor:
        """Return the logits of module `head` at its targets, float32 [targets, classes]."""


def extended(example: Example, token: int) -> Example:
    """Return `example` with one more causal token, at the next position of the same segment."""
    return replace(
        example,
        tokens=np.append(example.tokens, token),
        positions=np.append(example.positions, int(example.positions[-1]) + 1),
        segments=np.append(example.segments, example.segments[-1]),
        visible=np.append(example.visible, False),
    )


def _sample(logits: Tensor, temperature: float, top_p: float, u: float) -> int:
    """Sample a token from the nucleus (Holtzman et al. 2020) by inverse transform of `u`."""
    if temperature == 0:
        return int(logits.argmax())
    probabilities, order = torch.softmax(logits.double() / temperature, -1).sort(descending=True)
    total = probabilities.cumsum(0)
    size = int((total < top_p).sum()) + 1
    kept = total[:size]
    chosen = int(torch.searchsorted(kept, u * float(kept[-1]), right=True))
    return int(order[min(chosen, size - 1)])


def _unchanged(tokens: list[int]) -> list[int]:
    return tokens


def write(
    model: Predicts,
    examples: Sequence[Example],
    vocabulary: Vocabulary,
    device: torch.device,
    *,
    head: str,
    positions: int,
    max_tokens: int,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
    agreed: Callable[[list[int]], list[int]] = _unchanged,
    in_rows: bool = False,
) -> list[Ints]:
    """Continue each example until [EOS] or a limit.

    Args:
        model: a model in evaluation mode.
        examples: prompts; the first new token follows the last token of each.
        vocabulary: the model's vocabulary.
        device: the model's device.
        head: module that predicts the next token.
        positions: generation of an example ends when its last position id reaches this.
        max_tokens: maximum number of new tokens of each example.
        temperature: temperature of the softmax; 0 takes the most likely token.
        top_p: probability mass of the nucleus.
        seed: seed of the draws, together with the example's index and the step.
        agreed: makes the tokens of a step the same on all ranks that compute the model together.
        in_rows: whether the model requires batches in rows; the rows of a step are then as long as
            its longest example.

    Returns:
        The new tokens of each example, int64, without [EOS].
    """
    forbidden = torch.tensor(vocabulary.reserved_table, device=device)
    forbidden[vocabulary.eos] = False
    examples = list(examples)
    written: list[list[int]] = [[] for _ in examples]
    live = list(range(len(examples)))
    for step in range(max_tokens):
        live = [i for i in live if examples[i].positions[-1] < positions]
        if not live:
            break
        prompts = [_with_next_token_target(examples[i], head) for i in live]
        rows = Rows(max(map(len, prompts)), 1, 1) if in_rows else None
        batch = collate(prompts, pad=vocabulary.pad, heads=[head], rows=rows).widen().to(device)
        with torch.no_grad():
            logits = model.predict(batch, head)
        logits = logits.masked_fill(forbidden, float("-inf")).cpu()
        drawn = [float(CounterRng(seed, "generate", i, step).uniform(1)[0]) for i in live]
        tokens = agreed(
            [_sample(row, temperature, top_p, u) for row, u in zip(logits, drawn, strict=True)]
        )
        unfinished = []
        for i, token in zip(live, tokens, strict=True):
            if token != vocabulary.eos:
                written[i].append(token)
                examples[i] = extended(examples[i], token)
                unfinished.append(i)
        live = unfinished
    return [np.array(tokens, dtype=np.int64) for tokens in written]


def _with_next_token_target(example: Example, head: str) -> Example:
    """Return the example with one target for `head`: the token after its last one."""
    last = Targets(np.array([len(example) - 1]), np.zeros(1, np.int64))
    return replace(example, targets={head: last})
