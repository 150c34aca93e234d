"""Spans of noise: their number and places, and the source and target that they make of a text.

Shared by the denoisers of T5 (Raffel et al. 2020, section 3.1.4; t5/data/preprocessors.py in
google-research/text-to-text-transfer-transformer) and UL2 (Tay et al. 2022), as are mode tokens.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from megapt.data import CounterRng, Vocabulary
from megapt.data.example import Bools, Ints
from megapt.objectives.base import ObjectiveError
from megapt.objectives.ragged import Texts, choose, firsts, offsets, split

Mode = Literal["NLU", "NLG", "S2S"]


def mode_token(vocabulary: Vocabulary, mode: Mode | None) -> int | None:
    """Return the id of a mode token; None if `mode` is None.

    Raises:
        ObjectiveError: if the tokenizer has no such token.
    """
    if mode is None:
        return None
    if mode not in vocabulary.modes:
        available = ", ".join(f"[{name}]" for name in vocabulary.modes) or "none"
        raise ObjectiveError(
            f"the tokenizer has no mode token [{mode}] (its mode tokens: {available}); make one "
            f"that has it with `megapt-prep tokenizer`, or use no mode tokens"
        )
    return vocabulary.modes[mode]


def span_counts(sizes: Ints, rate: float, mean: float) -> tuple[Ints, Ints]:
    """Return the numbers of noise tokens and of spans in each text, int64 [texts] each.

    For n tokens, with n' = max(n, 2) and halves rounded to even, as in T5:

        noise = min(max(round(n' rate), 1), n' - 1)
        spans = min(max(round(noise / mean), 1), n' - noise)

    So the token of a one-token text is noise. Both numbers, and n' - noise, never fall as n grows.

    Args:
        sizes: n of each text, at least 1, int64 [texts].
        rate: share of the tokens, above 0 and below 1.
        mean: mean length of a span in tokens, at least 1.
    """
    n = np.maximum(sizes, 2)
    noise = np.rint(n * rate).astype(np.int64).clip(1, n - 1)
    spans = np.rint(noise / mean).astype(np.int64).clip(1, n - noise)
    return noise, spans


def largest_text(source: int, rate: float, mean: float) -> int:
    """Return the tokens of the largest text whose source, with its end token, fits in `source`.

    `random_spans_helper` of T5 returns the same for inputs of that length, except that it counts no
    span if round(noise / mean) is 0. As in T5, if half of the tokens are noise and the target would
    be longer than `source`, the result is one token less.

    Args:
        source: positions of the source, at least 2.
        rate: share of the tokens that is noise.
        mean: mean length of a span in tokens.
    """
    sizes = np.arange(1, int(source / (1 - rate)) + 1)
    noise, spans = span_counts(sizes, rate, mean)
    largest = int(np.count_nonzero(sizes - noise + spans + 1 <= source))
    if rate == 0.5 and noise[largest - 1] + spans[largest - 1] + 1 > source:
        return largest - 1
    return largest


def parts(sizes: Ints, counts: Ints, rng: CounterRng) -> Ints:
    """Cut runs into non-empty parts; all ways to cut are equally likely.

    Args:
        sizes: items of each run, at least 1, int64 [runs].
        counts: parts of each run, 1 to size, int64 [runs].
        rng: random numbers of the window.

    Returns:
        The sizes of the parts, run after run, int64 [sum of counts].
    """
    begins = np.ones(int(sizes.sum()), dtype=np.bool_)
    begins[offsets(sizes) > 0] = choose(sizes - 1, counts - 1, rng)
    return np.diff(np.flatnonzero(begins), append=len(begins))


def noise_mask(sizes: Ints, rate: float, mean: float, roll: bool, rng: CounterRng) -> Bools:
    """Choose the noise of each text by T5's rule.

    Noise and the rest are each cut into the same number of parts, which alternate, the rest first.
    Rolling then shifts the mask of a text by U{0..n-1}, modulo n, so that every token is equally
    likely to be noise. A span may then begin at the end of the text and end at its beginning.

    Args:
        sizes: tokens of each text, int64 [texts].
        rate: share of the tokens.
        mean: mean length of a span in tokens.
        roll: whether to roll. Without it, the first token is never noise, and the last one always.
        rng: random numbers of the window.

    Returns:
        bool [sum of sizes].
    """
    noise, spans = span_counts(sizes, rate, mean)
    kept = parts(np.maximum(sizes, 2) - noise, spans, rng)
    kept[(sizes == 1).repeat(spans)] = 0
    runs = np.stack([kept, parts(noise, spans, rng)], axis=1).ravel()
    mask: Bools = np.tile([False, True], len(kept)).repeat(runs)
    if roll:
        shifts = (rng.uniform(len(sizes)) * sizes).astype(np.int64)
        rolled = (offsets(sizes) + shifts.repeat(sizes)) % sizes.repeat(sizes)
        mask = mask[firsts(sizes).repeat(sizes) + rolled]
    return mask


def divide(texts: Texts, noise: Bools, sentinels: Ints) -> tuple[list[Ints], list[Ints]]:
    """Divide each text into a source and a target.

    In the source, a sentinel replaces each run of noise, in ascending order. In the target, each
    run follows its sentinel. If every sentinel of the source is replaced with its run from the
    target, the result is the text.

    Args:
        texts: texts of T tokens in total.
        noise: the noise tokens, at least one in each text, bool [T].
        sentinels: ids of the sentinels, at least as many as a text has runs.

    Returns:
        The sources and the targets, one of each per text, in the type of the tokens.
    """
    first = texts.firsts
    after_noise = np.zeros_like(noise)
    after_noise[1:] = noise[:-1]
    after_noise[first] = False
    starts = noise & ~after_noise
    runs = np.add.reduceat(starts, first, dtype=np.int64)
    noisy = np.add.reduceat(noise, first, dtype=np.int64)
    marks = sentinels[offsets(runs)]

    source = texts.tokens.copy()
    source[starts] = marks
    copies = np.add(
        noise, starts, dtype=np.int64
    )  # one copy of the first token of a run becomes the sentinel
    target = texts.tokens.repeat(copies)
    target[copies.cumsum()[starts] - 2] = marks
    return (
        split(source[~noise | starts], texts.sizes - noisy + runs),
        split(target, noisy + runs),
    )
