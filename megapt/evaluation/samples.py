"""What a model writes: continuations, rewritings or filled masks of held-out texts."""

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
from megapt.objectives.ragged import some_masked

_TEXT_TOKENS = 48
_MASKED = 0.15


class Sample(Record):
    """One generated text."""

    kind: Literal["continuation", "rewriting", "filling"]
    prompt: str
    text: str
    repetition: Fraction | None
    """Share of 4-grams that occurred before in the text; None for less than 4 tokens."""


def sample_texts(corpus: Corpus, count: int, window: int) -> list[Ints]:
    """Return the beginnings of `count` held-out documents, evenly spaced over those long enough.

    Each is of any integer type [n], at most `window` tokens, and not to be changed.
    """
    long = np.flatnonzero(corpus.validation.lengths >= _TEXT_TOKENS)
    long = long if len(long) else np.arange(len(corpus.validation))
    places = long[np.arange(min(count, len(long))) * len(long) // max(count, 1)]
    most = min(_TEXT_TOKENS, window)
    return [corpus.validation.piece(int(place)).tokens[:most] for place in places]


def _draws(number: int) -> CounterRng:
    return CounterRng(0, "samples", number)


def write_samples(
    run: LoadedRun, texts: Sequence[Ints], *, max_tokens: int, seed: int
) -> list[Sample]:
    """Return one sample a text, the same whenever the same run is asked.

    What can generate continues the first tokens, or rewrites the masked text if that is how it was
    trained; what predicts masked tokens fills them in; the others write nothing.

    Args:
        run: that writes.
        texts: of `sample_texts`.
        max_tokens: longest continuation or rewriting.
        seed: keys the draws.
    """
    tokenizer, objective = run.tokenizer, run.objective
    mask = tokenizer.vocabulary.mask
    if not texts:
        return []
    if not objective.generates:
        if not objective.fills_masks:
            return []
        questions = [some_masked(text, _MASKED, mask, _draws(i)) for i, text in enumerate(texts)]
        return [
            Sample(
                kind="filling",
                prompt=readable(tokenizer, question),
                text=tokenizer.decode(unmask(run, question)),
                repetition=None,
            )
            for question in questions
        ]
    prompts = [objective.sample_prompt(text, _draws(i)) for i, text in enumerate(texts)]
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
