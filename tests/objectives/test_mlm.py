from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, Example, Piece, Window
from megapt.data.batch import collate
from megapt.errors import ConfigError
from megapt.objectives import Context
from megapt.objectives.mlm import Mlm
from megapt.objectives.noise import MaskingConfig
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, windows

V = VOCABULARY
masking_units = st.sampled_from(["token", "word", "ngram", "span"])


def restored(example: Example) -> list[int]:
    tokens = example.tokens.copy()
    tokens[example.targets["tokens"].positions] = example.targets["tokens"].labels
    return tokens.tolist()


def masked(piece: Piece, *key: int | str, **settings: object) -> Example:
    [example] = examples_of(build("mlm", **settings), Window(0, 0, (piece,)), *key)
    return example


@pytest.mark.parametrize(
    ("window", "tokens", "places"),
    [
        (3, [50, 51, 52, 53, 54, V.mask, 56, 57], [1, 6]),  # one kept, one masked
        (11, [50, 51, 69, 53, V.mask, 55, 56, 57], [3, 5]),  # one random, one masked
    ],
)
def test_golden_examples(window: int, tokens: list[int], places: list[int]) -> None:
    """Worked out by the rule in plain Python; the budget is 0.3 * 8 = 2.4 tokens."""
    piece = make_piece(list(range(50, 58)))
    example = masked(piece, 7, "train", 0, window, "mlm", mask_rate=0.3)
    assert example.tokens.tolist() == [V.cls, *tokens, V.sep]
    assert example.targets["tokens"].positions.tolist() == places
    assert example.targets["tokens"].labels.tolist() == [49 + place for place in places]


@given(windows, keys, masking_units)
def test_labels_put_back_give_the_text_of_every_piece(window: Window, key: int, unit: str) -> None:
    examples = examples_of(build("mlm", unit=unit), window, key)
    assert [restored(example) for example in examples] == [
        [V.cls, *piece.tokens.tolist(), V.sep] for piece in window.pieces
    ]


@given(windows, keys, masking_units)
def test_special_tokens_are_never_chosen_and_something_always_is(
    window: Window, key: int, unit: str
) -> None:
    for example in examples_of(build("mlm", unit=unit), window, key):
        places = example.targets["tokens"].positions
        assert len(places) > 0
        assert places.min() >= 1
        assert places.max() <= len(example) - 2
        assert (example.targets["tokens"].labels >= V.ordinary[0]).all()


@given(windows, keys)
def test_tokens_that_are_not_predicted_are_not_changed(window: Window, key: int) -> None:
    for example, piece in zip(examples_of(build("mlm"), window, key), window.pieces, strict=True):
        free = np.setdiff1d(np.arange(len(piece.tokens)), example.targets["tokens"].positions - 1)
        assert (example.tokens[1:-1][free] == piece.tokens[free]).all()


@given(windows, keys, st.sampled_from(["word", "ngram", "span"]))
def test_whole_words_are_chosen(window: Window, key: int, unit: str) -> None:
    examples = examples_of(build("mlm", unit=unit), window, key)
    for example, piece in zip(examples, window.pieces, strict=True):
        chosen = np.isin(np.arange(len(piece.tokens)), example.targets["tokens"].positions - 1)
        words = np.cumsum(piece.word_starts)
        for word in set(words):
            assert len(set(chosen[words == word])) == 1


@given(windows, keys)
def test_every_piece_has_positions_from_0_and_one_segment(window: Window, key: int) -> None:
    for example in examples_of(build("mlm"), window, key):
        assert example.positions.tolist() == list(range(len(example)))
        assert not example.segments.any()
        assert example.visible.all()


@pytest.mark.parametrize("rate", [0.15, 0.3, 0.8])
def test_the_share_of_targets_is_the_mask_rate(rate: float) -> None:
    piece = random_piece(61, 1)
    objective = build("mlm", mask_rate=rate)
    window = Window(0, 0, (piece,))
    counts = [
        len(examples_of(objective, window, key)[0].targets["tokens"].labels) for key in range(1500)
    ]
    assert_mean(np.array(counts), rate * 61)


def test_targets_are_masked_replaced_and_kept_80_10_10() -> None:
    piece = make_piece([50] * 30_000)
    example = masked(piece, "shares")
    seen = example.tokens[example.targets["tokens"].positions]
    kept, hidden = (seen == 50).sum(), (seen == V.mask).sum()
    chance = 0.1 / (len(V.ordinary))
    shares = [0.8, 0.1 + chance, 0.1 - chance]
    assert_fits([hidden, kept, len(seen) - hidden - kept], shares)


def test_one_token_head() -> None:
    heads = build("mlm").heads
    assert [(head.name, head.kind, head.weight) for head in heads] == [("tokens", "token", 1)]


# --- the share over the run -----------------------------------------------------------------


def scheduled(first: float, final: float, steps: int | None) -> Mlm:
    config = MaskingConfig(mask_rate=first, final_mask_rate=final)
    return Mlm(config, Context(V, 1000, steps=steps))


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.3), (1, 0.2925), (10, 0.225), (19, 0.1575), (20, 0.15), (21, 0.15), (None, 0.15)],
)
def test_the_rate_goes_in_a_straight_line_from_the_first_step_to_the_last(
    step: int | None, rate: float
) -> None:
    """30 % to 15 % over 21 steps: 0.75 points a step; held-out text is masked at 15 %."""
    objective = scheduled(0.3, 0.15, steps=21)
    assert objective.rate(Window(0, 0, (), step=step)) == pytest.approx(rate, abs=1e-12)


def test_a_run_of_one_step_has_the_first_rate() -> None:
    assert scheduled(0.3, 0.15, steps=1).rate(Window(0, 0, (), step=0)) == 0.3


@pytest.mark.parametrize("step", [None, 0, 7])
def test_without_a_final_rate_the_rate_stays(step: int | None) -> None:
    assert build("mlm", mask_rate=0.2).rate(Window(0, 0, (), step=step)) == 0.2


@pytest.mark.parametrize(("step", "count"), [(0, 30), (10, 20), (20, 10), (None, 10)])
def test_texts_are_masked_at_the_rate_of_their_step(step: int | None, count: int) -> None:
    window = Window(0, 0, (random_piece(100, 1),), step=step)
    [example] = scheduled(0.3, 0.1, steps=21).examples(window, CounterRng(0))
    assert len(example.targets["tokens"].labels) == count


@pytest.mark.parametrize("name", ["mlm", "msc", "mgm", "bert"])
def test_a_schedule_without_planned_steps_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"from mask_rate 0\.3 to final_mask_rate 0\.15") as error:
        build(name, mask_rate=0.3, final_mask_rate=0.15)
    assert len(str(error.value).splitlines()) == 1
    assert "budget in raw tokens" in str(error.value)


# --- cost, masks that are given, texts without a target ---------------------------------------


@pytest.mark.parametrize(("tokens", "targets"), [(1, 1), (6, 1), (7, 1.05), (30, 4.5), (512, 76.8)])
def test_the_cost_of_a_text(tokens: int, targets: float) -> None:
    """One target at least; six tokens would ask for 0.9 of one."""
    cost = build("mlm").cost(tokens)
    assert (cost.positions, cost.targets) == (tokens + 2, pytest.approx(targets))


def test_the_cost_is_that_of_the_end_of_the_run() -> None:
    assert scheduled(0.3, 0.1, steps=21).cost(100).targets == pytest.approx(10)


@pytest.mark.parametrize("length", [1, 5, 7, 61])
def test_the_cost_is_what_texts_cost_on_average(length: int) -> None:
    objective, window = build("mlm"), Window(0, 0, (random_piece(length, 1),) * 3000)
    examples = examples_of(objective, window)
    assert {len(example) for example in examples} == {objective.cost(length).positions}
    counts = [len(example.targets["tokens"].labels) for example in examples]
    assert_mean(counts, objective.cost(length).targets)


def test_every_mask_of_a_text_is_asked() -> None:
    example = build("mlm").masked(np.array([50, V.mask, 52, V.mask]))
    assert example is not None
    assert example.tokens.tolist() == [V.cls, 50, V.mask, 52, V.mask, V.sep]
    assert example.targets["tokens"].positions.tolist() == [2, 4]
    assert example.targets["tokens"].labels.tolist() == [0, 0]


def test_without_a_head_for_masked_tokens_there_is_no_example() -> None:
    tokens = np.array([50, V.mask])
    assert build("arlm").asked_at_masks(tokens) is None
    example = build("diffusion").asked_at_masks(tokens)
    assert example is not None
    assert example.targets["tokens"].positions.tolist() == [2]


def test_texts_without_a_target_make_a_batch() -> None:
    """Hugging Face's rule leaves most texts of two tokens as they are."""
    window = Window(0, 0, (make_piece([50, 51]),) * 40)
    examples = examples_of(build("mlm", compat="huggingface"), window, 0)
    asked = [len(example.targets["tokens"].labels) for example in examples]
    assert 0 in asked
    for some in (examples, [examples[asked.index(0)]]):
        batch = collate(some, pad=V.pad, heads=["tokens"], token_heads=["tokens"]).widen()
        assert len(batch.targets["tokens"]) == sum(len(e.targets["tokens"].labels) for e in some)
        assert len(batch.tokens) == 4 * len(some)


@given(windows, keys, masking_units)
def test_equal_keys_give_equal_bytes(window: Window, key: int, unit: str) -> None:
    one, two = (examples_of(build("mlm", unit=unit), window, key, "train", 3) for _ in range(2))
    assert [e.tokens.tobytes() for e in one] == [e.tokens.tobytes() for e in two]
    for first, second in zip(one, two, strict=True):
        asked, again = first.targets["tokens"], second.targets["tokens"]
        assert asked.positions.tobytes() == again.positions.tobytes()
        assert asked.labels.tobytes() == again.labels.tobytes()
