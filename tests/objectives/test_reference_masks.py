"""The published masks, each against its rule worked by hand, one token at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, Piece, Window
from megapt.objectives.masking import MaskingConfig
from megapt.objectives.noise import Masked, mask
from megapt.objectives.reference_masks import RULES, Marks, bert_counts
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.splitmix import PlainRng
from tests.windows import VOCABULARY, keys, make_piece, pieces, random_piece, windows

V = VOCABULARY
COMPATS: list[dict[str, Any]] = [
    {"compat": "bert"},
    {"compat": "bert", "unit": "word"},
    {"compat": "huggingface"},
    {"compat": "huggingface", "unit": "word"},
    {"compat": "roberta"},
    {"compat": "spanbert", "unit": "span"},
]
every_compat = pytest.mark.parametrize("settings", COMPATS, ids=lambda s: "-".join(s.values()))
some_pieces = st.lists(pieces, min_size=1, max_size=4)
rates = st.sampled_from([0.05, 0.15, 0.3, 0.9])


def words_of(piece: Piece) -> list[list[int]]:
    """The places of the tokens of each word."""
    found: list[list[int]] = []
    for place, begins in enumerate(piece.word_starts):
        found += [[]] * bool(begins)
        found[-1] = [*found[-1], place]
    return found


# --- each rule by hand ----------------------------------------------------------------------


def bert(texts: list[Piece], config: MaskingConfig, rate: float, rng: PlainRng) -> list[set[int]]:
    """google-research/bert: candidates in random order, those that do not fit passed over."""
    candidates = [
        words_of(text) if config.unit == "word" else [[p] for p in range(len(text.tokens))]
        for text in texts
    ]
    orders = [rng.permutation(len(sets)) for sets in candidates]
    chosen = []
    for text, sets, order in zip(texts, candidates, orders, strict=True):
        number = max(1, round((len(text.tokens) + 2) * rate))  # Python rounds half to even
        number = min(number, config.max_predictions or number)
        covered: set[int] = set()
        for candidate in order:
            if len(covered) + len(sets[candidate]) <= number:
                covered |= set(sets[candidate])
        chosen.append(covered)
    return chosen


def huggingface(
    texts: list[Piece], config: MaskingConfig, rate: float, rng: PlainRng
) -> list[set[int]]:
    """A draw for each token or word."""
    if config.unit == "token":
        return [{p for p in range(len(text.tokens)) if rng.uniform() < rate} for text in texts]
    return [{p for word in words_of(text) if rng.uniform() < rate for p in word} for text in texts]


def roberta(
    texts: list[Piece], config: MaskingConfig, rate: float, rng: PlainRng
) -> list[set[int]]:
    """The product rounded down after a draw is added."""
    numbers = [int(rate * len(text.tokens) + rng.uniform()) for text in texts]
    orders = [rng.permutation(len(text.tokens)) for text in texts]
    return [set(order[:number]) for order, number in zip(orders, numbers, strict=True)]


def spanbert(
    texts: list[Piece], config: MaskingConfig, rate: float, rng: PlainRng
) -> list[set[int]]:
    """Anchors, each with a length, until enough tokens are covered."""
    weights = [(1 - config.span_p) ** n for n in range(config.max_span_length)]
    orders = [rng.permutation(len(text.tokens)) for text in texts]
    chosen = []
    for text, order in zip(texts, orders, strict=True):
        draws = [rng.uniform() * sum(weights) for _ in order]
        number = math.ceil(len(text.tokens) * rate)
        words = words_of(text)
        covered: set[int] = set()
        for anchor, draw in zip(order, draws, strict=True):
            length = next(n for n in range(1, len(weights) + 1) if draw < sum(weights[:n]))
            [first] = [i for i, word in enumerate(words) if anchor in word]
            if anchor in covered:
                continue
            for word in words[first : first + length]:
                for place in word:
                    if len(covered) < number:
                        covered.add(place)
        chosen.append(covered)
    return chosen


BY_HAND: dict[str, Callable[..., list[set[int]]]] = {
    "bert": bert,
    "huggingface": huggingface,
    "roberta": roberta,
    "spanbert": spanbert,
}


@every_compat
@given(texts=some_pieces, rate=rates, key=keys)
def test_tokens_are_chosen_by_the_rule_worked_by_hand(
    settings: dict[str, Any], texts: list[Piece], rate: float, key: int
) -> None:
    config = MaskingConfig(**settings)
    marks = Marks(
        np.concatenate([text.word_starts for text in texts]),
        np.array([len(text.tokens) for text in texts]),
    )
    chosen = RULES[settings["compat"]].choose(marks, config, rate, CounterRng(key))
    found = [set(np.flatnonzero(part)) for part in np.split(chosen, np.cumsum(marks.sizes)[:-1])]
    assert found == BY_HAND[settings["compat"]](texts, config, rate, PlainRng(key))


# --- BERT's numbers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "rate", "count"),
    [
        (3, 0.15, 1),  # a text of one token, [CLS] and [SEP]
        (4, 0.15, 1),
        (10, 0.15, 2),  # 1.5, half to even
        (30, 0.15, 4),  # 4.5, half to even
        (50, 0.15, 8),  # 7.5
        (70, 0.15, 10),  # 10.5
        (128, 0.15, 19),  # 19.2
        (512, 0.15, 77),  # 76.8
        (512, 0.4, 205),  # 204.8
        (6, 0.25, 2),  # 1.5
        (10, 0.25, 2),  # 2.5
        (5, 0.5, 2),  # 2.5
        (7, 0.5, 4),  # 3.5
    ],
)
def test_bert_masks_the_nearest_number_of_all_tokens(n: int, rate: float, count: int) -> None:
    assert bert_counts(np.array([n]), rate, None).tolist() == [count]
    texts = [random_piece(n - 2, 1)] * 20
    found = mask(texts, MaskingConfig(compat="bert", mask_rate=rate), V, CounterRng(n))
    assert {len(text.places) for text in found} == {min(count, n - 2)}


def test_berts_number_has_a_limit() -> None:
    """512 positions and 15 % of them ask for 77; the README of BERT sets 20 for 128 positions."""
    config = MaskingConfig(compat="bert", max_predictions=20)
    [long, short] = mask([random_piece(510, 1), random_piece(60, 1)], config, V, CounterRng(0))
    assert (len(long.places), len(short.places)) == (20, 9)


def test_special_tokens_around_a_text_count() -> None:
    """A pair has three of them: round(0.5 * 6) = 3, but round(0.5 * 7) = 4."""
    texts, config = [random_piece(4, 1)] * 2, MaskingConfig(compat="bert", mask_rate=0.5)
    found = mask(texts, config, V, CounterRng(0), specials=[2, 3])
    assert [len(text.places) for text in found] == [3, 4]


def test_berts_words_fall_short_of_the_number_where_none_fits() -> None:
    """round(0.15 * 22) = 3: of words of two tokens one fits, of one word of twenty none."""
    config = MaskingConfig(compat="bert", unit="word")
    pairs = make_piece([50] * 20, words=range(0, 20, 2))
    long = make_piece([50] * 20, words=[0])
    found = mask([pairs, long], config, V, CounterRng(0))
    assert [len(text.places) for text in found] == [2, 0]


# --- how many, and what they become ---------------------------------------------------------


@every_compat
@pytest.mark.parametrize("n", [1, 2, 7, 30, 61])
def test_the_expected_number_is_that_of_the_cost(settings: dict[str, Any], n: int) -> None:
    objective = build("mlm", **settings)
    window = Window(0, 0, (make_piece([50] * n),) * 2000)
    counts = [len(example.targets["tokens"].labels) for example in examples_of(objective, window)]
    assert_mean(counts, objective.cost(n).targets)


def corrupted(settings: dict[str, Any], length: int = 60, **shares: float) -> list[Masked]:
    texts = [make_piece([50 + (place % 2) for place in range(length)])] * 2000
    return mask(texts, MaskingConfig(**settings, **shares), V, CounterRng("become"), 0.3)


def ids_drawn(settings: dict[str, Any]) -> np.ndarray:
    found = corrupted(settings, mask_replace_prob=0.0, random_replace_prob=1.0)
    return np.bincount(
        np.concatenate([text.tokens[text.places] for text in found]), minlength=V.size
    )


@pytest.mark.parametrize("settings", COMPATS[:4], ids=lambda s: "-".join(s.values()))
def test_random_ids_of_bert_and_hugging_face_may_be_special(settings: dict[str, Any]) -> None:
    assert_fits(ids_drawn(settings), np.ones(V.size))


def test_random_ids_of_roberta_are_ordinary_or_mask() -> None:
    drawn = ids_drawn({"compat": "roberta"})
    allowed = np.append(V.mask, V.ordinary)
    assert drawn.sum() == drawn[allowed].sum()
    assert_fits(drawn[allowed], np.ones(len(allowed)))


def test_random_ids_of_spanbert_are_as_frequent_as_in_the_text() -> None:
    drawn = ids_drawn({"compat": "spanbert", "unit": "span"})
    assert drawn.sum() == drawn[50] + drawn[51]
    assert_fits(drawn[50:52], [1, 1])


@every_compat
def test_chosen_tokens_come_in_their_shares(settings: dict[str, Any]) -> None:
    if settings["compat"] == "spanbert":  # one draw a span: tokens are no independent sample
        found = corrupted({**settings, "max_span_length": 1, "span_p": 0.5}, length=4)
        found = [text for text in found if (np.diff(text.places) > 1).all()]
    else:
        found = corrupted(settings)
    new = np.concatenate([text.tokens[text.places] for text in found])
    old = np.concatenate([text.labels for text in found])
    hidden, kept = (new == V.mask).sum(), (new == old).sum()
    ids = RULES[settings["compat"]].ids(V, old)
    same, mask_id = 0.1 * np.mean(ids == 50), 0.1 * np.mean(ids == V.mask)
    assert_fits(
        [hidden, kept, len(new) - hidden - kept], [0.8 + mask_id, 0.1 + same, 0.1 - same - mask_id]
    )


def test_spanberts_spans_become_one_kind() -> None:
    kinds: list[str] = []
    for text in corrupted({"compat": "spanbert", "unit": "span"}):
        for run in np.split(
            np.arange(len(text.places)), np.flatnonzero(np.diff(text.places) > 1) + 1
        ):
            new, old = text.tokens[text.places[run]], text.labels[run]
            if (new == V.mask).any():
                assert (new == V.mask).all()
                kinds.append("mask")
            else:
                kinds.append("kept" if (new == old).all() else "random")
    assert kinds.count("mask") / len(kinds) == pytest.approx(0.8, abs=0.02)
    assert 0 < kinds.count("random") < kinds.count("kept"), "a short random span may be the old one"


# --- in the objectives ----------------------------------------------------------------------


@every_compat
@pytest.mark.parametrize("name", ["mlm", "msc", "mgm"])
@given(window=windows, key=keys)
def test_labels_put_back_give_the_text(
    name: str, settings: dict[str, Any], window: Window, key: int
) -> None:
    for example, piece in zip(
        examples_of(build(name, **settings), window, key), window.pieces, strict=True
    ):
        asked = example.targets["tokens"]
        if name == "mgm":
            assert asked.labels.tolist() == [*piece.tokens.tolist(), V.eos]
            continue
        tokens = example.tokens.copy()
        tokens[asked.positions] = asked.labels
        assert tokens.tolist() == [V.cls, *piece.tokens.tolist(), V.sep]


@every_compat
@given(window=windows, key=keys)
def test_special_tokens_are_chosen_by_roberta_alone(
    settings: dict[str, Any], window: Window, key: int
) -> None:
    for example in examples_of(build("mlm", **settings), window, key):
        ends = np.isin(example.targets["tokens"].positions, [0, len(example) - 1])
        assert settings["compat"] == "roberta" or not ends.any()


def test_roberta_masks_the_ends_like_any_other_token() -> None:
    window = Window(0, 0, (random_piece(18, 1),) * 6000)
    examples = examples_of(build("mlm", compat="roberta"), window, 0)
    places = np.concatenate([example.targets["tokens"].positions for example in examples])
    hits = np.bincount(places, minlength=20)
    # 3 of 20 always: the counts vary by (1 - 1/20) (1 - 0.15) of the independent case.
    assert hits.sum() == 3 * 6000
    assert np.abs(hits - 900).max() < 4.5 * np.sqrt(900 * 0.85)
    assert any(example.tokens[0] == V.mask for example in examples)


@pytest.mark.parametrize("compat", ["huggingface", "roberta"])
def test_a_text_may_be_left_without_a_target(compat: str) -> None:
    window = Window(0, 0, (make_piece([50, 51]),) * 300)
    examples = examples_of(build("mlm", compat=compat), window, 0)
    empty = [example for example in examples if len(example.targets["tokens"].labels) == 0]
    assert 0 < len(empty) < 300
    assert empty[0].tokens.tolist() == [V.cls, 50, 51, V.sep]


@every_compat
def test_distinct_windows_get_distinct_masks(settings: dict[str, Any]) -> None:
    objective, piece = build("mlm", **settings), random_piece(300, 3)
    masks = {
        tuple(examples_of(objective, Window(0, k, (piece,)), 0, k)[0].tokens.tolist())
        for k in range(200)
    }
    assert len(masks) == 200
