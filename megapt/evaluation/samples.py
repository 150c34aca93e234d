"""Text samples of a model: continuations, rewritings or filled masks of validation texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from megapt.config.section import Fraction
from megapt.data import Corpus, CounterRng
from megapt.data.example import Ints
from megapt.evaluation.generation import generate, repetition
from megapt.evaluation.loading import LoadedRun
from megapt.evaluation.scores import Record
from megapt.evaluation.text import readable
from megapt.evaluation.unmasking import unmask
from megapt.objectives.ragged import mask_randomly

_TEXT_TOKENS = 48
_MASKED = 0.15


class Sample(Record):
    """One generated text."""

    kind: Literal["continuation", "rewriting", "filling"]
    prompt: str
    text: str
    repetition: Fraction | None
    """Share of 4-grams that occurred before in the text; None for fewer than 4 tokens."""


def sample_texts(corpus: Corpus, count: int, window: int) -> list[Ints]:
    """Return the beginnings of `count` validation documents, evenly spaced over the long ones.

    A document is long if it has at least 48 tokens. If none is, all documents count. Each
    beginning has any integer type, [n], at most 48 and at most `window` tokens, and must not be
    changed.
    """
    long = np.flatnonzero(corpus.validation.lengths >= _TEXT_TOKENS)
    long = long if len(long) else np.arange(len(corpus.validation))
    places = long[np.arange(min(count, len(long))) * len(long) // max(count, 1)]
    most = min(_TEXT_TOKENS, window)
    return [corpus.validation.piece(int(place)).tokens[:most] for place in places]


def _rng(number: int) -> CounterRng:
    return CounterRng(0, "samples", number)


def write_samples(
    run: LoadedRun, texts: Sequence[Ints], *, max_tokens: int, seed: int
) -> list[Sample]:
    """Return one sample per text; the same run always returns the same samples.

    A model that can generate continues the first tokens, or rewrites the masked text if it was
    trained that way. A model that predicts masked tokens fills them in. Other models write
    nothing.

    Args:
        run: the run whose model writes.
        texts: the result of `sample_texts`.
        max_tokens: longest continuation or rewriting, in tokens.
        seed: key of the random draws.
    """
    tokenizer, objective = run.tokenizer, run.objective
    mask = tokenizer.vocabulary.mask
    if not texts:
        return []
    if not objective.generates:
        if not objective.fills_masks:
            return []
        masked = [mask_randomly(text, _MASKED, mask, _rng(i)) for i, text in enumerate(texts)]
        return [
            Sample(
                kind="filling",
                prompt=readable(tokenizer, text),
                text=tokenizer.decode(unmask(run, text)),
                repetition=None,
            )
            for text in masked
        ]
    prompts = [objective.sample_prompt(text, _rng(i)) for i, text in enumerate(texts)]
    written = generate(run, prompts, max_tokens=max_tokens, seed=seed)
    kind: Literal["continuation", "rewriting"]
    kind = "rewriting" if objective.rewrites else "continuation"
    return [
        Sample(
            kind=kind,
            prompt=readable(tokenizer, prompt),
            text=tokenizer.decode(text),
            repetition=repetition(text),
        )
        for prompt, text in zip(prompts, written, strict=True)
    ]
