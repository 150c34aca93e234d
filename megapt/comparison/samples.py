"""What a member writes: continuations, rewritings or filled masks of held-out texts."""

from __future__ import annotations

from typing import Literal

import numpy as np

from megapt.comparison.results import Sample
from megapt.config import CompareConfig
from megapt.data import Corpus, CounterRng, Piece
from megapt.evaluation import LoadedRun, generate, readable, repetition, unmask
from megapt.objectives.ragged import some_masked

_TEXT_TOKENS = 48
_MASKED = 0.15


def _texts(corpus: Corpus, count: int) -> list[Piece]:
    """Return `count` held-out documents long enough to show, evenly spaced over the split."""
    long = np.flatnonzero(corpus.valid.lengths >= _TEXT_TOKENS)
    long = long if len(long) else np.arange(len(corpus.valid))
    places = long[np.arange(min(count, len(long))) * len(long) // max(count, 1)]
    return [corpus.valid.piece(int(place)) for place in places]


def _draws(number: int) -> CounterRng:
    return CounterRng(0, "samples", number)


def member_samples(run: LoadedRun, corpus: Corpus, config: CompareConfig) -> list[Sample]:
    """Return the samples of one run: the same held-out texts for every member.

    What can generate continues the first tokens, or rewrites the masked text if that is how it was
    trained; what predicts masked tokens fills them in; the others write nothing.
    """
    tokenizer = run.tokenizer
    most = min(_TEXT_TOKENS, run.longest_text)
    texts = [piece.tokens[:most] for piece in _texts(corpus, config.samples)]
    mask = tokenizer.vocabulary.mask
    objective = run.objective
    if not texts:
        return []
    if objective.prompt(texts[0]) is None:
        if objective.masked(texts[0]) is None:
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
    written = generate(run, prompts, max_tokens=config.sample_tokens, seed=config.seed)
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
