"""Spans of words for `infilling`: their lengths and their places (Lewis et al. 2020).

Also the rule of BART's code, fairseq/data/denoising_dataset.py in facebookresearch/fairseq.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from megapt.data import CounterRng
from megapt.data.example import Bools, Floats, Ints
from megapt.objectives.ragged import Texts, firsts, offsets, picked


class Spans(NamedTuple):
    """Spans of some texts, text by text, before they are placed."""

    lengths: Ints
    """Words of each span, int64 [S]; the empty spans of a text come last."""
    counts: Ints
    """Number of spans of each text, int64 [texts]."""
    empty: Ints
    """Number of empty spans of each text, int64 [texts]."""


class Items(NamedTuple):
    """The texts cut into items; each item is kept, or replaced as a whole."""

    sizes: Ints
    """Tokens of each item, 0 for an inserted [MASK], int64 [I]."""
    hidden: Bools
    """Whether the item is replaced, bool [I]."""
    random: Bools
    """Whether random tokens replace the item, instead of [MASK], bool [I]."""
    counts: Ints
    """Number of items of each text, int64 [texts]."""


@lru_cache(maxsize=16)
def span_table(mean: float) -> Floats:
    """Return P(length <= l | length > 0) of a Poisson length, for l = 1, 2, ..., float64 [longest].

    The last length is more than ten standard deviations above the mean. The probability beyond it
    is less than 2^-53, the step of the uniform draws.
    """
    lengths = np.arange(1, int(mean + 10 * math.sqrt(mean)) + 20)
    total = np.exp(lengths * math.log(mean) - mean - np.log(lengths).cumsum()).cumsum()
    table: Floats = total / total[-1]
    return table


@lru_cache(maxsize=4096)
def expected_spans(words: int, mean: float) -> float:
    """Return how many Poisson lengths are drawn on average until their sum reaches `words`.

    The number of lengths above 0 follows from the renewal equation K(m) = 1 +
    sum_{l < m} P(l | l > 0) K(m - l). For each of them, 1 / (1 - exp(-mean)) lengths are drawn.
    """
    shares = np.diff(span_table(mean), prepend=0)
    expected = np.zeros(words + 1)
    for m in range(1, words + 1):
        longest = min(m, len(shares))
        expected[m] = 1 + shares[:longest] @ expected[m - longest : m][::-1]
    return float(expected[words] / -math.expm1(-mean))


def round_randomly(expected: Floats, rng: CounterRng) -> Ints:
    """Round each number up or down at random, so that the mean is the number itself, int64."""
    whole = np.floor(expected)
    up = rng.uniform(len(whole)) < expected - whole
    return whole.astype(np.int64) + up


def draw_spans(words: Ints, room: Ints, mean: float, rng: CounterRng) -> Spans:
    """Draw Poisson lengths for each text until their sum reaches `words`; the last one is cut.

    Lengths above 0 are drawn first, at most one per word. Then the number of zeros before each of
    them is drawn: z or more with probability exp(-mean z).

    Args:
        words: number of words in the spans of each text, int64 [texts].
        room: maximum number of spans of each text, at least `words`; further empty spans are
            skipped.
        mean: mean of the lengths.
        rng: random numbers of the window.
    """
    text = np.arange(len(words)).repeat(words)
    lengths = 1 + span_table(mean).searchsorted(rng.uniform(len(text)), side="right")
    total = np.concatenate([[0], lengths.cumsum()])
    left = words.repeat(words) - (total[:-1] - total[firsts(words)].repeat(words))
    used = left > 0
    text, lengths = text[used], np.minimum(lengths, left)[used]
    filled = np.bincount(text, minlength=len(words))
    zeros = np.floor(-np.log1p(-rng.uniform(len(text))) / mean)
    empty = np.bincount(text, zeros, minlength=len(words)).astype(np.int64)
    empty = np.minimum(empty, room - filled)
    counts = filled + empty
    all_lengths = np.zeros(int(counts.sum()), dtype=np.int64)
    all_lengths[offsets(counts) < filled.repeat(counts)] = lengths
    return Spans(all_lengths, counts, empty)


def place_spans(texts: Texts, kept: Ints, spans: Spans, share: float, rng: CounterRng) -> Items:
    """Put the spans and the kept words of each text in random order; all are equally likely.

    Args:
        texts: the texts.
        kept: number of words of each text that are in no span, int64 [texts].
        spans: spans of the other words.
        share: share of the spans that random tokens replace.
        rng: random numbers of the window.
    """
    counts = kept + spans.counts
    places = picked(counts, spans.counts, rng)
    words = np.ones(int(counts.sum()), dtype=np.int64)
    words[places] = spans.lengths
    hidden = np.zeros(len(words), dtype=np.bool_)
    hidden[places] = True
    random = np.zeros(len(words), dtype=np.bool_)
    random[places] = rng.uniform(len(places)) < share
    ends = np.append(np.flatnonzero(texts.word_starts), len(texts.tokens))[words.cumsum()]
    return Items(np.diff(ends, prepend=0), hidden, random, counts)


def place_spans_as_bart(
    texts: Texts, words: Ints, spans: Spans, longest: int, share: float, rng: CounterRng
) -> Items:
    """Place spans at random words, where they may overlap, then insert [MASK]s between tokens.

    `DenoisingDataset.add_whole_word_mask` and `add_insertion_noise` of fairseq.

    Args:
        texts: the texts.
        words: number of words of each text, int64 [texts].
        spans: spans to place; a span is cut at the end of its text.
        longest: maximum number of tokens of a source; further inserted [MASK]s are skipped.
        share: share of the [MASK]s that become random tokens.
        rng: random numbers of the window.
    """
    filled = spans.counts - spans.empty
    lengths = spans.lengths[spans.lengths > 0]
    starts = picked(words, filled, rng)
    reach = np.zeros(len(texts.tokens), dtype=np.int64)
    reach[starts] = np.minimum(starts + lengths, words.cumsum().repeat(filled))
    # Words inside an earlier span. If another span begins at such a word, its [MASK] is lost.
    inside = np.append(False, np.maximum.accumulate(reach)[:-1] > np.arange(1, len(reach)))
    begins = reach > 0
    word = texts.word_starts.cumsum() - 1
    first = ~inside[word] & (texts.word_starts | ~begins[word])
    at = np.flatnonzero(first)
    sizes, hidden = np.diff(at, append=len(first)), begins[word[at]]
    random = hidden & (rng.uniform(len(at)) < share)
    counts = np.add.reduceat(first, texts.firsts, dtype=np.int64)

    # fairseq passes the share spans / (tokens with [BOS] and [EOS]), and rounds the product up.
    inserts = np.ceil((counts + 2) * (spans.empty / (counts + 2))).astype(np.int64)
    inserts = np.minimum(inserts, longest - counts)
    total = counts + inserts
    places = picked(total, inserts, rng)
    old = np.ones(int(total.sum()), dtype=np.bool_)
    old[places] = False
    items = Items(np.zeros(len(old), dtype=np.int64), ~old, np.zeros(len(old), np.bool_), total)
    items.sizes[old], items.hidden[old], items.random[old] = sizes, hidden, random
    items.random[places] = offsets(inserts) < np.ceil(inserts * share).repeat(inserts)
    return items
