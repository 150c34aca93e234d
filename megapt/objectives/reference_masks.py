"""Published masks, rule by rule: which tokens they choose, and what replaces these tokens.

All rules take the texts of a window end to end, T tokens in total, without special tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from megapt.data import CounterRng, Vocabulary
from megapt.data.example import Bools, Ints
from megapt.objectives.masking import Compat, MaskingConfig, draw_lengths, words
from megapt.objectives.ragged import choose, firsts, offsets, shuffled


@dataclass(frozen=True)
class Marks:
    """The texts of a window, as a rule reads them."""

    word_starts: Bools
    """bool [T]; each text begins with a word."""
    sizes: Ints
    """Tokens of each text, at least 1, int64 [texts]."""
    specials: Ints | int = 2
    """Number of special tokens around each text, int64 [texts], or one number for all."""


def bert_counts(sizes: Ints, rate: float, most: int | None) -> Ints:
    """Return how many tokens BERT masks: max(1, round(rate * n)), halves to even, at most `most`.

    Args:
        sizes: tokens of each text, with its special tokens, int64 [texts].
        rate: share of the tokens.
        most: limit; None: no limit.
    """
    counts: Ints = np.maximum(1, np.rint(sizes * rate).astype(np.int64))
    return counts if most is None else np.minimum(counts, most)


def bert(marks: Marks, config: MaskingConfig, rate: float, rng: CounterRng) -> Bools:
    """Choose an exact number of tokens, or words in random order up to that number of tokens.

    `create_masked_lm_predictions` in create_pretraining_data.py of google-research/bert. A word
    that does not fit is skipped. So fewer tokens may be chosen, and none if every word is longer.
    """
    sizes = marks.sizes
    counts = bert_counts(sizes + marks.specials, rate, config.max_predictions)
    counts = np.minimum(counts, sizes)
    if config.unit == "token":
        return choose(sizes, counts, rng)
    word_of, first_words, text_words = words(marks.word_starts, sizes)
    lengths = np.bincount(word_of)
    order = shuffled(text_words, rng)
    ordered = lengths[order].tolist()
    taken = np.zeros(len(lengths), dtype=np.bool_)
    fitting = []
    for first, number, left in zip(
        first_words.tolist(), text_words.tolist(), counts.tolist(), strict=True
    ):
        for place in range(first, first + number):
            if ordered[place] <= left:
                fitting.append(place)
                left -= ordered[place]
                if not left:
                    break
    taken[order[fitting]] = True
    return taken[word_of]


def huggingface(marks: Marks, config: MaskingConfig, rate: float, rng: CounterRng) -> Bools:
    """Choose each token, or each word, independently; a text may have no chosen token.

    `DataCollatorForLanguageModeling` in data/data_collator.py of huggingface/transformers 5.
    """
    if config.unit == "token":
        return rng.uniform(len(marks.word_starts)) < rate
    word_of, _, text_words = words(marks.word_starts, marks.sizes)
    taken: Bools = rng.uniform(int(text_words.sum())) < rate
    return taken[word_of]


def roberta(marks: Marks, config: MaskingConfig, rate: float, rng: CounterRng) -> Bools:
    """Choose floor(rate * n + u) tokens, u uniform; a text may have no chosen token.

    data/mask_tokens_dataset.py of facebookresearch/fairseq. It also masks the special tokens around
    the text; `mlm` passes them as a part of the text.
    """
    u = rng.uniform(len(marks.sizes))
    return choose(marks.sizes, (rate * marks.sizes + u).astype(np.int64), rng)


def spanbert(marks: Marks, config: MaskingConfig, rate: float, rng: CounterRng) -> Bools:
    """Choose ceil(rate * n) tokens in spans of whole words at random tokens; the last span is cut.

    `PairWithSpanMaskingScheme` in pretraining/fairseq/data/masking.py of facebookresearch/SpanBERT.
    A span does not begin at a chosen token, but it may run into chosen tokens.
    """
    sizes = marks.sizes
    word_of, first_words, text_words = words(marks.word_starts, sizes)
    lengths = np.bincount(word_of)
    # An anchor that is drawn twice is already chosen, so a random order of the tokens is enough.
    anchors = word_of[shuffled(sizes, rng)].tolist()
    limits = np.full(len(word_of), config.max_span_length)
    spans = draw_lengths(config.lengths, limits, rng).tolist()
    whole = lengths.tolist()
    chosen = [0] * len(whole)  # number of chosen tokens of each word, its first ones
    for first, stop, budget in zip(
        firsts(sizes).tolist(),
        (first_words + text_words).tolist(),
        np.ceil(rate * sizes).astype(np.int64).tolist(),
        strict=True,
    ):
        left, place = budget, first
        while left:
            anchor = anchors[place]
            if not chosen[anchor]:
                for word in range(anchor, min(anchor + spans[place], stop)):
                    if not chosen[word]:
                        chosen[word] = min(whole[word], left)
                        left -= chosen[word]
            place += 1
    return offsets(lengths) < np.array(chosen)[word_of]


@dataclass(frozen=True)
class Rule:
    """A published mask."""

    choose: Callable[[Marks, MaskingConfig, float, CounterRng], Bools]
    """Function that returns the chosen tokens, bool [T]."""
    expected: Callable[[int, MaskingConfig, float], float]
    """Mean number of chosen tokens in [CLS], a text of n tokens and [SEP], with single tokens."""
    ids: Callable[[Vocabulary, Ints], Ints]
    """Ids to draw random ids from, given the vocabulary and the tokens of the window."""
    spans_share_draw: bool = False
    """Whether adjacent chosen tokens all become [MASK], all become random, or all stay."""


RULES: Mapping[Compat, Rule] = MappingProxyType(
    {
        "bert": Rule(
            bert,
            lambda n, config, rate: float(
                min(n, bert_counts(np.array([n + 2]), rate, config.max_predictions)[0])
            ),
            lambda vocabulary, tokens: np.arange(vocabulary.size),
        ),
        "huggingface": Rule(
            huggingface,
            lambda n, config, rate: rate * n,
            lambda vocabulary, tokens: np.arange(vocabulary.size),
        ),
        # fairseq excludes the special symbols, but <mask> is added after them.
        "roberta": Rule(
            roberta,
            lambda n, config, rate: rate * (n + 2),
            lambda vocabulary, tokens: np.append(vocabulary.ordinary, vocabulary.mask),
        ),
        # Drawn from the text itself, so by the frequencies of the text.
        "spanbert": Rule(
            spanbert,
            lambda n, config, rate: float(np.ceil(rate * n)),
            lambda vocabulary, tokens: tokens,
            spans_share_draw=True,
        ),
    }
)
