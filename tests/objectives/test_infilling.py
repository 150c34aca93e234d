from __future__ import annotations

import math
from collections import Counter, defaultdict
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import RESERVED, Window
from megapt.errors import ConfigError
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.objectives.infilled import PLAIN, THREE, V, distinct, hidden_words, source_of, sources
from tests.windows import keys, make_piece, random_piece, sized_windows, windows

noises = st.fixed_dictionaries(
    {
        "mask_rate": st.sampled_from([0.0, 0.15, 0.3, 0.9]),
        "mean_span_length": st.sampled_from([1.0, 3.5, 20.0]),
        "random_replace_prob": st.sampled_from([0.0, 0.1, 1.0]),
        "permute_sentences": st.sampled_from([0.5, 1.0]),
        "rotate": st.sampled_from([0.0, 0.5]),
    }
)
modes = st.sampled_from(
    [{"replace": "one"}, {"replace": "each"}, {"replace": "none"}, {"compat": "bart"}]
)


def test_golden_layout() -> None:
    piece = make_piece([50, 51, 52], document=4)
    objective = build("infilling", mask_rate=0.0, permute_sentences=0.0, rotate=1.0)
    [example] = examples_of(objective, Window(0, 0, (piece,)), 5)
    assert source_of(example) in ([50, 51, 52], [51, 52, 50], [52, 50, 51])
    assert example.tokens[[0, 4]].tolist() == [V.cls, V.sep]
    assert example.tokens[5:].tolist() == [V.bos, 50, 51, 52]
    assert example.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert example.segments.tolist() == [0] * 5 + [1] * 4
    assert example.visible.tolist() == [True] * 5 + [False] * 4
    assert example.targets["tokens"].positions.tolist() == [5, 6, 7, 8]
    assert example.targets["tokens"].labels.tolist() == [50, 51, 52, V.eos]
    assert example.document == 4


@given(sized_windows(), keys, noises, modes)
def test_the_target_is_the_text_and_the_source_fits(
    drawn: tuple[int, Window], key: int, noise: dict[str, Any], mode: dict[str, str]
) -> None:
    size, window = drawn
    objective = build("infilling", window=size, **noise, **mode)
    for example, piece in zip(examples_of(objective, window, key), window.pieces, strict=True):
        assert example.targets["tokens"].labels.tolist() == [*piece.tokens.tolist(), V.eos]
        assert len(source_of(example)) <= size
        assert len(example) <= objective.longest_example(size) == 2 * size + 3
        assert example.positions.max() < size + RESERVED
        if mode.get("replace") in ("each", "none"):
            assert len(source_of(example)) <= len(piece.tokens)


@pytest.mark.parametrize("mode", [{}, {"compat": "bart"}], ids=str)
def test_insertions_stop_where_the_source_is_full(mode: dict[str, str]) -> None:
    """With spans of one word on average, more would be inserted than is hidden."""
    piece, noise = distinct(24), {"mask_rate": 0.9, "mean_span_length": 1.0, **mode}
    full = [len(source) for source in sources(piece, 300, window=24, **noise)]
    free = [len(source) for source in sources(piece, 300, window=1000, **noise)]
    assert max(full) == 24 < max(free)


@given(windows, keys, st.sampled_from(["one", "each", "none"]))
def test_the_source_is_the_text_with_whole_words_hidden(
    window: Window, key: int, replace: str
) -> None:
    objective = build("infilling", **PLAIN, replace=replace)
    for example, piece in zip(examples_of(objective, window, key), window.pieces, strict=True):
        source, text = source_of(example), iter(piece.tokens.tolist())
        assert all(token in text for token in source if token != V.mask), "a subsequence"
        if replace == "each":
            hidden = np.array(source) == V.mask
            assert (np.array(source)[~hidden] == piece.tokens[~hidden]).all()
            starts = piece.word_starts[1:]
            assert (starts | (hidden[1:] == hidden[:-1])).all()
        if replace == "none":
            assert V.mask not in source


@pytest.mark.parametrize("replace", ["one", "each", "none"])
def test_words_are_hidden_as_a_whole(replace: str) -> None:
    piece = distinct(40, words=[0, 1, 4, 5, 9, 15, 16, 17, 20, 28, 30, 33])
    found = [hidden_words(s, piece) for s in sources(piece, 400, **PLAIN, replace=replace)]
    assert set(found) == {3, 4}  # 0.3 x 12 = 3.6
    assert_mean(found, 3.6)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 61])
def test_the_share_of_hidden_words_is_the_mask_rate(n: int, rate: float) -> None:
    piece = distinct(n)
    found = [hidden_words(s, piece) for s in sources(piece, 500, **PLAIN, mask_rate=rate)]
    assert set(found) <= {math.floor(rate * n), math.ceil(rate * n)}
    assert_mean(found, rate * n)


def test_each_text_of_a_window_has_its_own_words_hidden() -> None:
    texts = tuple(random_piece(n, n, document=n) for n in (20, 100))
    objective = build("infilling", **PLAIN, replace="each", mask_rate=0.5)
    for key in range(50):
        examples = examples_of(objective, Window(0, 0, texts), key)
        for example, piece in zip(examples, texts, strict=True):
            hidden = np.array(source_of(example)) == V.mask
            count = int(piece.word_starts.sum())
            assert int((hidden & piece.word_starts).sum()) in {count // 2, -(-count // 2)}


def test_every_arrangement_of_spans_has_its_chance() -> None:
    """Five words, two of them hidden: by one span or two, with [MASK]s inserted anywhere."""
    mean, count = 2.0, 20_000
    one = mean * math.exp(-mean) / -math.expm1(-mean)  # P(1 | > 0)
    none = math.exp(-mean)
    shares: dict[str, float] = defaultdict(float)
    for chance, spans in ((1 - one, [2]), (one, [1, 1])):
        for empty in range(3):  # more are rare
            ways = math.comb(empty + len(spans) - 1, empty)  # failures before the last success
            weight = chance * ways * none**empty * (1 - none) ** len(spans)
            orders = set(permutations("w" * 3 + "s" * len(spans) + "e" * empty))
            for order in orders:
                text, at, left = "", 0, iter(spans)
                for item in order:
                    at += {"w": 1, "e": 0, "s": next(left) if item == "s" else 0}[item]
                    text += str(at) if item == "w" else "*"
                shares[text] += weight / len(orders)
    drawn = Counter(
        "".join("*" if t == V.mask else str(t - V.ordinary[0] + 1) for t in source)
        for source in sources(distinct(5), count, **PLAIN, mask_rate=0.4, mean_span_length=mean)
    )
    frequent = [text for text, share in shares.items() if share * count > 20]
    assert len(frequent) > 40
    rest = count - sum(drawn[text] for text in frequent)
    expected = [shares[text] for text in frequent]
    assert_fits([*(drawn[text] for text in frequent), rest], [*expected, 1 - sum(expected)])


def test_random_tokens_are_ordinary_and_uniform() -> None:
    piece = make_piece([40] * 200)
    drawn = sources(
        piece, 300, permute_sentences=0.0, random_replace_prob=1.0, mask_rate=0.9, replace="each"
    )
    counts = np.bincount(np.concatenate(drawn), minlength=V.size)
    assert counts[V.reserved].sum() == 0
    assert_fits(np.delete(counts, [*V.reserved, 40]), np.ones(V.size - len(V.reserved) - 1))


def test_the_share_of_random_spans() -> None:
    piece = make_piece([40] * 150)
    random_spans = masks = 0
    for source in sources(piece, 600, permute_sentences=0.0, random_replace_prob=0.25):
        masks += source.count(V.mask)
        random_spans += sum(token not in (40, V.mask) for token in source)
    share = 0.25 * (len(V.ordinary) - 1) / len(V.ordinary)  # 40 itself is seen as the text
    assert_fits([random_spans, masks], [share, 0.75])


def test_a_span_is_random_as_a_whole() -> None:
    """With few spans, [MASK]s and random tokens hardly ever touch."""
    piece = make_piece([40] * 100)
    settings: dict[str, Any] = {
        "mask_rate": 0.1,
        "mean_span_length": 50.0,
        "random_replace_prob": 0.5,
    }
    for source in sources(piece, 100, permute_sentences=0.0, replace="each", **settings):
        assert source.count(V.mask) in (0, 10)


def test_all_orders_of_sentences_are_equally_likely() -> None:
    text = V.ordinary[:9].tolist()
    parts = (text[:2], text[2:5], text[5:])
    drawn = Counter(map(tuple, sources(THREE, 6000, mask_rate=0.0)))
    orders = [(*a, *b, *c) for a, b, c in permutations(parts)]
    assert set(drawn) == set(orders)
    assert_fits([drawn[order] for order in orders], np.ones(6))


def test_a_share_of_the_sentences_changes_places() -> None:
    """0.8 x 5 = 4 of five: one stays, and the others stand in each of 24 orders."""
    piece = distinct(5, sentences=(0, 1, 2, 3, 4))
    found = [
        sum(a == b for a, b in zip(source, piece.tokens.tolist(), strict=True))
        for source in sources(piece, 6000, mask_rate=0.0, permute_sentences=0.8)
    ]
    fixed = Counter(
        1 + sum(a == b for a, b in enumerate(order)) for order in permutations(range(4))
    )
    kinds = sorted(fixed)
    counts = Counter(found)
    assert set(counts) == set(kinds)
    assert_fits([counts[kind] for kind in kinds], [fixed[kind] for kind in kinds])


def made_of(source: list[int], sentences: Counter[tuple[int, ...]]) -> bool:
    """Whether the source is these sentences end to end, in some order; some may begin alike."""
    if not source:
        return not +sentences
    heads = {tuple(source[: len(sentence)]) for sentence in +sentences}
    return any(
        made_of(source[len(head) :], sentences - Counter([head]))
        for head in heads
        if sentences[head] > 0
    )


@given(windows, keys)
def test_permuted_sentences_stay_whole(window: Window, key: int) -> None:
    objective = build("infilling", mask_rate=0.0)
    for example, piece in zip(examples_of(objective, window, key), window.pieces, strict=True):
        starts = [*np.flatnonzero(piece.sentence_starts).tolist(), len(piece.tokens)]
        text = piece.tokens.tolist()
        left = Counter(tuple(text[a:b]) for a, b in pairwise(starts))
        assert made_of(source_of(example), left)


def test_masks_reach_over_sentences_that_have_changed_places() -> None:
    """Order: permute, then mask. One span may hold the end of one sentence and the next's start."""
    piece = distinct(10, sentences=(0, 5))
    first, last = V.ordinary[[0, 9]].tolist()
    together = 0
    for source in sources(
        piece, 300, mask_rate=0.4, mean_span_length=20.0, random_replace_prob=0.0
    ):
        swapped = next(t for t in source if t != V.mask) >= V.ordinary[5]
        together += swapped and source.count(V.mask) == 1 and not {first, last} & set(source)
    assert together > 0


@pytest.mark.parametrize(("mode", "first"), [({}, 1), ({"compat": "bart"}, 2)], ids=["own", "bart"])
def test_rotations_begin_at_any_token(mode: dict[str, str], first: int) -> None:
    piece = distinct(6, words=[0, 3])
    noise: dict[str, Any] = {"mask_rate": 0.0, "permute_sentences": 0.0, "rotate": 1.0, **mode}
    drawn = sources(piece, 5000, **noise)
    text = piece.tokens.tolist()
    assert all(source in [text[k:] + text[:k] for k in range(6)] for source in drawn)
    counts = Counter(source[0] for source in drawn)
    # fairseq counts the whole turn twice.
    assert_fits([counts[token] for token in text], [first, 1, 1, 1, 1, 1])


def test_the_share_of_rotations() -> None:
    noise: dict[str, Any] = {"mask_rate": 0.0, "permute_sentences": 0.0, "rotate": 0.4}
    turned = [source[0] != V.ordinary[0] for source in sources(distinct(10), 3000, **noise)]
    assert_mean(turned, 0.4 * 0.9)


@pytest.mark.parametrize("mode", [{}, {"compat": "bart"}, {"rotate": 0.5}], ids=str)
def test_windows_have_noise_of_their_own(mode: dict[str, Any]) -> None:
    objective = build("infilling", **mode)
    window = Window(0, 0, (random_piece(300, 1),))

    def noised(number: int) -> tuple[int, ...]:
        return tuple(source_of(examples_of(objective, window, 0, "train", 0, number)[0]))

    assert [noised(k) for k in range(5)] == [noised(k) for k in range(5)]
    assert len({noised(k) for k in range(200)}) == 200


def test_a_prompt_is_a_source_whose_rewriting_begins() -> None:
    prompt = build("infilling").prompt(np.array([50, V.mask]))
    assert prompt is not None
    assert prompt.tokens.tolist() == [V.cls, 50, V.mask, V.sep, V.bos]
    assert prompt.positions.tolist() == [0, 1, 2, 3, 0]
    assert prompt.visible.tolist() == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_rate": 0.0, "permute_sentences": 0.0}, "the source would be the text itself"),
        ({"compat": "bart", "replace": "each"}, "replaces each span by one"),
        ({"mask_rate": 1.0}, "mask_rate"),
        ({"mean_span_length": 0.5}, "mean_span_length"),
        ({"replace": "two"}, "replace"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("infilling", **settings)


def test_the_settings_without_a_preset_are_those_of_the_preset() -> None:
    assert type(build("infilling").config)() == build("infilling").config
