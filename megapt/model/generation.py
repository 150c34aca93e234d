"""Writes text token by token with the trunks that can: causal and prefix ones."""

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
    """What is needed of a model."""

    def predict(self, batch: Batch, head: str) -> Tensor:
        """Return the logits of one module at its targets, float32 [targets, classes]."""


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
    """Draw a token by inverse transform of `u` from the nucleus (Holtzman et al. 2020)."""
    if temperature == 0:
        return int(logits.argmax())
    probabilities, order = torch.softmax(logits.double() / temperature, -1).sort(descending=True)
    total = probabilities.cumsum(0)
    size = int((total < top_p).sum()) + 1
    kept = total[:size]
    chosen = int(torch.searchsorted(kept, u * float(kept[-1]), right=True))
    return int(order[min(chosen, size - 1)])


def _alone(tokens: list[int]) -> list[int]:
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
    agreed: Callable[[list[int]], list[int]] = _alone,
    in_rows: bool = False,
) -> list[Ints]:
    """Go on with each example until [EOS].

    Args:
        model: in evaluation mode.
        examples: each ends where the first token is to be written.
        vocabulary: of the model.
        device: of the model.
        head: module that predicts the next token.
        positions: no token is written at or after this one.
        max_tokens: most tokens to write.
        temperature: of the softmax; 0 takes the most likely token.
        top_p: probability mass of the nucleus.
        seed: keys the draws, together with the example's number and the step.
        agreed: makes the tokens of a step the same on all ranks that compute the model together.
        in_rows: whether the model reads rows alone; the examples of a step then make some as long
            as the longest of them.

    Returns:
        The tokens written after each example, int64.
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
        asked = [_asked(examples[i], head) for i in live]
        rows = Rows(max(map(len, asked)), 1, 1) if in_rows else None
        batch = collate(asked, pad=vocabulary.pad, heads=[head], rows=rows).widen().to(device)
        with torch.no_grad():
            logits = model.predict(batch, head)
        logits = logits.masked_fill(forbidden, float("-inf")).cpu()
        drawn = [float(CounterRng(seed, "generate", i, step).uniform(1)[0]) for i in live]
        tokens = agreed(
            [_sample(row, temperature, top_p, u) for row, u in zip(logits, drawn, strict=True)]
        )
        going = []
        for i, token in zip(live, tokens, strict=True):
            if token != vocabulary.eos:
                written[i].append(token)
                examples[i] = extended(examples[i], token)
                going.append(i)
        live = going
    return [np.array(tokens, dtype=np.int64) for tokens in written]


def _asked(example: Example, head: str) -> Example:
    """Return the example asked what comes after its last token."""
    last = Targets(np.array([len(example) - 1]), np.zeros(1, np.int64))
    return replace(example, targets={head: last})
