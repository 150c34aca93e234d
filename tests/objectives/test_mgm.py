from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, Example, Window
from megapt.errors import ConfigError
from megapt.objectives import Context
from megapt.objectives.mgm import Mgm, MgmConfig
from tests.chance import assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, windows

V = VOCABULARY


def test_golden_layout() -> None:
    piece = make_piece([50, 51, 52], document=4)
    [example] = examples_of(build("mgm", mask_rate=0.01), Window(0, 0, (piece,)), 0)
    [hidden] = np.flatnonzero(example.tokens == V.mask)  # the budget is below one token: one
    source = [V.cls, 50, 51, 52, V.sep]
    source[hidden] = V.mask
    assert example.tokens.tolist() == [*source, V.bos, 50, 51, 52]
    assert example.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert example.segments.tolist() == [0] * 5 + [1] * 4
    assert example.visible.tolist() == [True] * 5 + [False] * 4
    assert example.targets["tokens"].positions.tolist() == [5, 6, 7, 8]
    assert example.targets["tokens"].labels.tolist() == [50, 51, 52, V.eos]
    assert example.document == 4


def source_of(example: Example) -> np.ndarray:
    return example.tokens[example.visible][1:-1]


@given(windows, keys)
def test_targets_are_the_whole_text_and_eos(window: Window, key: int) -> None:
    for example, piece in zip(examples_of(build("mgm"), window, key), window.pieces, strict=True):
        assert example.targets["tokens"].labels.tolist() == [*piece.tokens.tolist(), V.eos]


@given(windows, keys)
def test_the_target_is_fed_shifted_by_one(window: Window, key: int) -> None:
    for example in examples_of(build("mgm"), window, key):
        target = example.targets["tokens"]
        assert target.positions.tolist() == np.flatnonzero(~example.visible).tolist()
        assert example.tokens[target.positions[0]] == V.bos
        assert example.tokens[target.positions[1:]].tolist() == target.labels[:-1].tolist()


@given(windows, keys)
def test_a_token_has_the_same_position_in_source_and_target(window: Window, key: int) -> None:
    for example, piece in zip(examples_of(build("mgm"), window, key), window.pieces, strict=True):
        n = len(piece.tokens)
        assert example.positions[1 : n + 1].tolist() == example.positions[n + 3 :].tolist()
        assert example.segments.tolist() == [0] * (n + 2) + [1] * (n + 1)


@given(windows, keys, st.sampled_from(["token", "word", "ngram", "span"]))
def test_the_source_is_the_text_with_masks(window: Window, key: int, unit: str) -> None:
    examples = examples_of(build("mgm", unit=unit), window, key)
    for example, piece in zip(examples, window.pieces, strict=True):
        source = source_of(example)
        hidden = source == V.mask
        assert hidden.any()
        assert (source[~hidden] == piece.tokens[~hidden]).all()


def test_the_share_of_masks_is_the_mask_rate() -> None:
    objective, window = build("mgm"), Window(0, 0, (random_piece(61, 1),))
    counts = [
        (source_of(examples_of(objective, window, key)[0]) == V.mask).sum() for key in range(1500)
    ]
    assert_mean(np.array(counts), 0.3 * 61)


@pytest.mark.parametrize(("step", "count"), [(0, 50), (5, 40), (10, 30), (None, 30)])
def test_the_share_follows_the_steps(step: int | None, count: int) -> None:
    config = MgmConfig(mask_rate=0.5, final_mask_rate=0.3)
    objective = Mgm(config, Context(V, 1000, steps=11))
    window = Window(0, 0, (random_piece(100, 1),), step=step)
    [example] = objective.examples(window, CounterRng(0))
    assert (source_of(example) == V.mask).sum() == count


def test_roberta_masks_the_text_of_a_source_but_not_its_ends() -> None:
    window = Window(0, 0, (random_piece(20, 1),) * 300)
    for example in examples_of(build("mgm", compat="roberta"), window, 0):
        assert (example.tokens[0], example.tokens[21]) == (V.cls, V.sep)
        assert (source_of(example) == V.mask).sum() == 6


@pytest.mark.parametrize("tokens", [1, 61])
def test_the_cost_is_what_a_text_costs(tokens: int) -> None:
    objective = build("mgm")
    [example] = examples_of(objective, Window(0, 0, (random_piece(tokens, 1),)), 0)
    cost = objective.cost(tokens)
    assert (len(example), len(example.targets["tokens"].labels)) == (cost.positions, cost.targets)


def test_a_mask_is_not_asked_where_it_stands() -> None:
    assert build("mgm").masked(np.array([50, V.mask])) is None


@pytest.mark.parametrize("window", [16, 512])
def test_an_example_takes_its_text_twice(window: int) -> None:
    assert build("mgm").longest_example(window) == 2 * window + 3


def test_a_prompt_is_a_source_whose_rewriting_begins() -> None:
    prompt = build("mgm").prompt(np.array([50, V.mask]))
    assert prompt is not None
    assert prompt.tokens.tolist() == [V.cls, 50, V.mask, V.sep, V.bos]
    assert prompt.positions.tolist() == [0, 1, 2, 3, 0]
    assert prompt.segments.tolist() == [0, 0, 0, 0, 1]
    assert prompt.visible.tolist() == [True] * 4 + [False]


def test_the_settings_without_a_preset_are_those_of_the_preset() -> None:
    settings = type(build("mgm").config)()
    assert settings == build("mgm").config


@pytest.mark.parametrize(
    "wrong", [{"mask_rate": 1.0}, {"mask_replace_prob": 1.5}, {"random_replace_prob": -0.1}]
)
def test_settings_that_make_no_mask_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="objective"):
        build("mgm", **wrong)
