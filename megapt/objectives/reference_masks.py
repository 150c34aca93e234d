"""Published masks, rule by rule: which tokens they choose, and what they put in their place.

All rules take the texts of a window end to end, T tokens in all, without their special tokens.
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
    """The texts of a window, as a rule sees them."""

    word_starts: Bools
    """bool [T]; each text begins with a word."""
    sizes: Ints
    """Tokens of each text, at least 1, int64 [texts]."""
    specials: Ints | int = 2
    """Special tokens around each text, int64 [texts]."""


def bert_counts(sizes: Ints, rate: float, most: int | None) -> Ints:
    """Return how many tokens BERT masks: max(1, round(rate * n)), half to even, `most` at most.

    Args:
        sizes: tokens of each text with its special tokens, int64 [texts].
        rate: share of the tokens.
        most: limit, if any.
    """
    counts: Ints = np.maximum(1, np.rint(sizes * rate).astype(np.int64))
    return counts if most is None else np.minimum(counts, most)


def bert(marks: Marks, config: MaskingConfig, rate: float, rng: CounterRng) -> Bools:
    """Choose an exact number of tokens, or words in random order that do not exceed it.

    `create_masked_lm_predictions` in create_pretraining_data.py of google-research/bert. A word
    that does not fit is passed over, so that the number can fall short, to none where every word is
    larger.
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
    """Choose each token, or each word, by a draw of its own; a text may be left without any.

    `DataCollatorForLanguageModeling` in data/data_collator.py of huggingface/transformers 5.
    """
    if config.unit == "token":
        return rng.uniform(len(marks.word_starts)) < rate
    word_of, _, text_words = words(marks.word_starts, marks.sizes)
    taken: Bools = rng.uniform(int(text_words.sum())) < rate
    return taken[word_of]


def roberta(marks: Marks, config: MaskingConfig, rate: float, rng: CounterRng) -> Bools:
    """Choose floor(rate * n + u) tokens, u uniform; a text may be left without any.

    data/mask_tokens_dataset.py of facebookresearch/fairseq. It masks the tokens around the text
    too; `mlm` gives them as part of it.
    """
    u = rng.uniform(len(marks.sizes))
    return choose(marks.sizes, (rate * marks.sizes + u).astype(np.int64), rng)


def spanbert(marks: Marks, config: MaskingConfig, rate: float, rng: CounterRng) -> Bools:
    """Choose ceil(rate * n) tokens in spans of whole words at random tokens; the last one is cut.

    `PairWithSpanMaskingScheme` in pretraining/fairseq/data/masking.py of facebookresearch/SpanBERT.
    A token already chosen begins no span, but a span may run into chosen ones.
    """
    sizes = marks.sizes
    word_of, first_words, text_words = words(marks.word_starts, sizes)
    lengths = np.bincount(word_of)
    # Anchors that are drawn again are chosen already: a random order holds all that count.
    anchors = word_of[shuffled(sizes, rng)].tolist()
    limits = np.full(len(word_of), config.max_span_length)
    spans = draw_lengths(config.lengths, limits, rng).tolist()
    whole = lengths.tolist()
    chosen = [0] * len(whole)  # tokens of each word, from its first on
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
    """Returns the chosen tokens, bool [T]."""
    expected: Callable[[int, MaskingConfig, float], float]
    """Tokens chosen on average of a text of n, framed by [CLS] and [SEP], with single tokens."""
    ids: Callable[[Vocabulary, Ints], Ints]
    """What random ids are drawn from, given the vocabulary and the tokens of the window."""
    spans_alike: bool = False
    """Neighbors that are chosen become all [MASK], all random, or all stay."""


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
        # fairseq adds <mask> after the special symbols that it leaves out.
        "roberta": Rule(
            roberta,
            lambda n, config, rate: rate * (n + 2),
            lambda vocabulary, tokens: np.append(vocabulary.ordinary, vocabulary.mask),
        ),
        # Drawn from the text itself, that is as often as the text has them.
        "spanbert": Rule(
            spanbert,
            lambda n, config, rate: float(np.ceil(rate * n)),
            lambda vocabulary, tokens: tokens,
            spans_alike=True,
        ),
    }
)
