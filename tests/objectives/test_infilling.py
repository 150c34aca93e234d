from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import RESERVED, CounterRng, Example, Piece, Window
from megapt.errors import ConfigError
from megapt.objectives.word_spans import draw_spans, expected_spans, span_table
from tests.chance import assert_fits, assert_mean
from tests.objectives.building import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, sized_windows, windows

V = VOCABULARY
PLAIN: dict[str, Any] = {"permute": 0.0, "random_share": 0.0}
"""Masks alone."""
noises = st.fixed_dictionaries(
    {
        "mask_rate": st.sampled_from([0.0, 0.15, 0.3, 0.9]),
        "span_mean": st.sampled_from([1.0, 3.5, 20.0]),
        "random_share": st.sampled_from([0.0, 0.1, 1.0]),
        "permute": st.sampled_from([0.5, 1.0]),
        "rotate": st.sampled_from([0.0, 0.5]),
    }
)
modes = st.sampled_from(
    [{"replace": "one"}, {"replace": "each"}, {"replace": "none"}, {"compat": "bart"}]
)


def distinct(n: int, words: list[int] | None = None, sentences: tuple[int, ...] = (0,)) -> Piece:
    """A text whose tokens are told apart; by default each is a word."""
    return make_piece(V.ordinary[:n].tolist(), words=words, sentences=sentences)


def source_of(example: Example) -> list[int]:
    """What is between [CLS] and [SEP]."""
    source: list[int] = example.tokens[example.visible][1:-1].tolist()
    return source


def sources(piece: Piece, count: int, **settings: Any) -> list[list[int]]:
    """`count` sources of a piece, which stands 50 times in a window."""
    objective, window = build("infilling", **settings), Window(0, 0, (piece,) * 50)
    drawn: list[list[int]] = []
    while len(drawn) < count:
        drawn += map(source_of, examples_of(objective, window, len(drawn)))
    return drawn[:count]


def hidden_words(source: list[int], piece: Piece) -> int:
    """Words of a text of distinct tokens that the source lacks; all of each word, or nothing."""
    gone = ~np.isin(piece.tokens, source)
    word = piece.word_starts.cumsum()
    assert not set(word[gone]) & set(word[~gone]), "words are hidden as a whole"
    return len(set(word[gone]))


def test_golden_layout() -> None:
    piece = make_piece([50, 51, 52], document=4)
    objective = build("infilling", mask_rate=0.0, permute=0.0, rotate=1.0)
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
    piece, noise = distinct(24), {"mask_rate": 0.9, "span_mean": 1.0, **mode}
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
        for source in sources(distinct(5), count, **PLAIN, mask_rate=0.4, span_mean=mean)
    )
    frequent = [text for text, share in shares.items() if share * count > 20]
    assert len(frequent) > 40
    rest = count - sum(drawn[text] for text in frequent)
    expected = [shares[text] for text in frequent]
    assert_fits([*(drawn[text] for text in frequent), rest], [*expected, 1 - sum(expected)])


# --- the lengths of spans ------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [1.0, 3.5, 30.0, 100.0])
def test_the_table_is_poisson(mean: float) -> None:
    table = span_table(mean)
    masses = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(1000)]
    positive = sum(masses[1:])
    assert np.diff(table, prepend=0) == pytest.approx(
        [mass / positive for mass in masses[1 : len(table) + 1]], abs=1e-14
    )
    assert sum(masses[len(table) + 1 :]) < 2**-53
    assert table[-1] == 1


@pytest.mark.parametrize("mean", [1.0, 3.5, 6.0])
def test_span_lengths_are_poisson_with_the_empty_ones(mean: float) -> None:
    """All but the last of a text, which is cut."""
    words = np.array([60_000, 0, 3])
    spans = draw_spans(words, words * 10, mean, CounterRng("lengths"))
    first = spans.lengths[: int(spans.counts[0])]
    assert first.sum() == 60_000
    assert spans.counts[1] == 0
    assert spans.lengths[-int(spans.counts[2]) :].sum() == 3
    filled = int(spans.counts[0] - spans.empty[0])
    lengths = [*first[: filled - 1], *first[filled:]]
    longest = int(mean + 2 * math.sqrt(mean))
    observed = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)
    masses = [math.exp(-mean) * mean**k / math.factorial(k) for k in range(longest)]
    assert_fits(observed, [*masses, 1 - sum(masses)])


@pytest.mark.parametrize(("words", "mean"), [(1, 3.5), (2, 1.0), (7, 3.5), (40, 3.5), (40, 1.0)])
def test_the_expected_number_of_spans(words: int, mean: float) -> None:
    many = np.full(20_000, words)
    spans = draw_spans(many, many * 1000, mean, CounterRng(words))
    assert_mean(spans.counts, expected_spans(words, mean))


def test_the_expected_number_of_spans_by_hand() -> None:
    drawn = 1 / (1 - math.exp(-2))
    one = 2 * math.exp(-2) * drawn
    assert expected_spans(0, 2.0) == 0
    assert expected_spans(1, 2.0) == pytest.approx(drawn)
    assert expected_spans(2, 2.0) == pytest.approx(drawn * (1 + one))


@pytest.mark.parametrize("replace", ["one", "each", "none"])
@pytest.mark.parametrize("n", [1, 5, 64, 150])
def test_the_cost(n: int, replace: str) -> None:
    objective = build("infilling", replace=replace)
    window = Window(0, 0, (distinct(n),))
    examples = [examples_of(objective, window, key)[0] for key in range(1500)]
    cost = objective.cost(n)
    assert_mean([len(example) for example in examples], cost.positions)
    assert {len(example.targets["tokens"].labels) for example in examples} == {cost.targets}


# --- random tokens -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 30, 61, 64])
def test_the_cost_knows_that_a_source_may_be_full(n: int) -> None:
    """An upper bound there, which no example exceeds and which holds for the mean."""
    objective = build("infilling", window=64, mask_rate=0.9, span_mean=1)
    window = Window(0, 0, (distinct(n),))
    sizes = [len(examples_of(objective, window, key)[0]) for key in range(500)]
    cost = objective.cost(n).positions
    assert np.mean(sizes) <= cost + 0.5
    assert cost <= np.mean(sizes) + 4
    assert cost <= objective.longest_example(64)


def test_random_tokens_are_ordinary_and_uniform() -> None:
    piece = make_piece([40] * 200)
    drawn = sources(piece, 300, permute=0.0, random_share=1.0, mask_rate=0.9, replace="each")
    counts = np.bincount(np.concatenate(drawn), minlength=V.size)
    assert counts[V.reserved].sum() == 0
    assert_fits(np.delete(counts, [*V.reserved, 40]), np.ones(V.size - len(V.reserved) - 1))


def test_the_share_of_random_spans() -> None:
    piece = make_piece([40] * 150)
    random_spans = masks = 0
    for source in sources(piece, 600, permute=0.0, random_share=0.25):
        masks += source.count(V.mask)
        random_spans += sum(token not in (40, V.mask) for token in source)
    share = 0.25 * (len(V.ordinary) - 1) / len(V.ordinary)  # 40 itself is seen as the text
    assert_fits([random_spans, masks], [share, 0.75])


def test_a_span_is_random_as_a_whole() -> None:
    """With few spans, [MASK]s and random tokens hardly ever touch."""
    piece = make_piece([40] * 100)
    settings: dict[str, Any] = {"mask_rate": 0.1, "span_mean": 50.0, "random_share": 0.5}
    for source in sources(piece, 100, permute=0.0, replace="each", **settings):
        assert source.count(V.mask) in (0, 10)


# --- sentences and rotation ----------------------------------------------------------------------

THREE = distinct(9, sentences=(0, 2, 5))
"""Sentences of 2, 3 and 4 words."""


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
        for source in sources(piece, 6000, mask_rate=0.0, permute=0.8)
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
    for source in sources(piece, 300, mask_rate=0.4, span_mean=20.0, random_share=0.0):
        swapped = next(t for t in source if t != V.mask) >= V.ordinary[5]
        together += swapped and source.count(V.mask) == 1 and not {first, last} & set(source)
    assert together > 0


@pytest.mark.parametrize(("mode", "first"), [({}, 1), ({"compat": "bart"}, 2)], ids=["own", "bart"])
def test_rotations_begin_at_any_token(mode: dict[str, str], first: int) -> None:
    piece = distinct(6, words=[0, 3])
    noise: dict[str, Any] = {"mask_rate": 0.0, "permute": 0.0, "rotate": 1.0, **mode}
    drawn = sources(piece, 5000, **noise)
    text = piece.tokens.tolist()
    assert all(source in [text[k:] + text[:k] for k in range(6)] for source in drawn)
    counts = Counter(source[0] for source in drawn)
    # fairseq counts the whole turn twice.
    assert_fits([counts[token] for token in text], [first, 1, 1, 1, 1, 1])


def test_the_share_of_rotations() -> None:
    noise: dict[str, Any] = {"mask_rate": 0.0, "permute": 0.0, "rotate": 0.4}
    turned = [source[0] != V.ordinary[0] for source in sources(distinct(10), 3000, **noise)]
    assert_mean(turned, 0.4 * 0.9)


# --- fairseq's rule ------------------------------------------------------------------------------


def noised_by_hand(n: int, rate: float, mean: float, share: float, rng: random.Random) -> list[int]:
    """BART's noise on words 0..n-1, word by word; -1 is a [MASK], -2 a random token.

    Lengths are drawn until they reach the budget. Spans begin at different words and overwrite each
    other: the [MASK] stands where a span begins, unless a later step of another one deletes it.
    """

    def poisson() -> int:
        k, p, u = 0, math.exp(-mean), rng.random()
        while u >= p and k < 100:
            u, k = u - p, k + 1
            p *= mean / k
        return k

    budget, lengths = math.ceil(n * rate), list[int]()
    while sum(lengths) < budget:
        lengths.append(min(poisson(), budget - sum(lengths)))
    spans = [length for length in lengths if length]
    starts = rng.sample(range(n), len(spans))
    words: list[int | None] = list(range(n))
    for start in starts:
        words[start] = -2 if rng.random() < share else -1
    for start, length in zip(starts, spans, strict=True):
        for place in range(start + 1, min(start + length, n)):
            words[place] = None
    source = [word for word in words if word is not None]
    inserts = len(lengths) - len(spans)
    places = rng.sample(range(len(source) + inserts), inserts)
    randoms = set(places[: math.ceil(inserts * share)])
    left = iter(source)
    return [
        (-2 if place in randoms else -1) if place in places else next(left)
        for place in range(len(source) + inserts)
    ]


@pytest.mark.parametrize(("n", "mean"), [(6, 2.0), (30, 3.5)])
def test_compat_follows_fairseq(n: int, mean: float) -> None:
    """The same lengths, [MASK]s, random tokens and hidden words as by hand, from other draws."""
    count, rng = 8000, random.Random(n)
    piece, share = distinct(n), 0.3
    noise: dict[str, Any] = {"permute": 0.0, "span_mean": mean, "random_share": share}
    ours = []
    for source in sources(piece, count, compat="bart", **noise):
        # A random token may be one of the text: only its share of the others can be told.
        ours.append([t if t == V.mask or t in piece.tokens else -2 for t in source])
    hand = [noised_by_hand(n, 0.3, mean, share, rng) for _ in range(count)]
    told = 1 - n / (V.size - 1) - 1 / (V.size - 1)

    def counts(values: list[int]) -> Counter[int]:
        return Counter(values)

    pairs = [
        (counts([len(s) for s in ours]), counts([len(s) for s in hand])),
        (
            counts([s[0] == V.mask for s in ours]),
            counts([s[0] == -1 or (s[0] == -2 and rng.random() < 1 / (V.size - 1)) for s in hand]),
        ),
        (
            counts([s.count(-2) for s in ours]),
            counts([sum(w == -2 and rng.random() < told for w in s) for s in hand]),
        ),
    ]
    for a, b in pairs:
        both = [k for k in a | b if a[k] + b[k] > 20]
        statistic = sum((a[k] - b[k]) ** 2 / (a[k] + b[k]) for k in both)
        freedom = len(both) - 1
        assert statistic < freedom + 5 * math.sqrt(2 * max(freedom, 1))


def test_compat_rounds_up_and_lays_spans_over_each_other() -> None:
    """A lone word is always hidden; in longer texts too few are, because spans overlap.

    In single precision 0.3 x 100 is a little more than 30, so the budget is 31.
    """
    assert sources(distinct(1), 50, **PLAIN, compat="bart", span_mean=20.0) == [[V.mask]] * 50
    piece = distinct(100)
    found = [hidden_words(s, piece) for s in sources(piece, 500, **PLAIN, compat="bart")]
    assert max(found) == 31
    assert np.mean(found) < 29


def test_compat_cuts_spans_at_the_end_of_a_text() -> None:
    """Of two words one is hidden, however far the spans of the text before would reach."""
    first = distinct(60, words=list(range(0, 60, 2)))
    second = make_piece(V.ordinary[60:64].tolist(), words=[0, 1])
    objective = build("infilling", **PLAIN, compat="bart", span_mean=20.0)
    for key in range(200):
        sources = map(source_of, examples_of(objective, Window(0, 0, (first, second)), key))
        hidden = list(map(hidden_words, sources, (first, second)))
        assert 0 < hidden[0] <= 9
        assert hidden[1] == 1


def test_compat_draws_any_id_but_the_first() -> None:
    piece = make_piece([40] * 100)
    drawn = sources(piece, 1500, compat="bart", permute=0.0, random_share=1.0)
    counts = np.bincount(np.concatenate(drawn), minlength=V.size)
    assert counts[0] == 0
    assert_fits(np.delete(counts, [0, 40]), np.ones(V.size - 2))


@pytest.mark.parametrize(("share", "moving"), [(0.1, 1), (0.4, 2), (0.6, 2), (1.0, 3)])
def test_compat_rounds_the_share_of_sentences_up(share: float, moving: int) -> None:
    drawn = sources(THREE, 600, compat="bart", mask_rate=0.0, permute=share)
    orders = {tuple(source) for source in drawn}
    # One of three alone cannot move; two of three exchange, each two; three make all six orders.
    assert len(orders) == {1: 1, 2: 4, 3: 6}[moving]


# --- draws, prompts, settings --------------------------------------------------------------------


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
        ({"mask_rate": 0.0, "permute": 0.0}, "the source would be the text itself"),
        ({"compat": "bart", "replace": "each"}, "replaces each span by one"),
        ({"mask_rate": 1.0}, "mask_rate"),
        ({"span_mean": 0.5}, "span_mean"),
        ({"replace": "two"}, "replace"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build("infilling", **settings)


def test_the_settings_without_a_preset_are_those_of_the_preset() -> None:
    assert type(build("infilling").config)() == build("infilling").config
