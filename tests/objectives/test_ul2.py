from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from megapt.data import CounterRng, Vocabulary, Window
from megapt.errors import ConfigError
from megapt.objectives.mixture import Mixture
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, random_piece, sized_windows

V = VOCABULARY
W = 64
RECIPES = pytest.mark.parametrize("recipe", ["ul2", "ul2r"])


def mixture(vocabulary: Vocabulary = V, window: int = W, **settings: Any) -> Mixture:
    built = build("ul2", vocabulary, window=window, **settings)
    assert isinstance(built, Mixture)
    return built


def drawn(objective: Mixture, window: Window, key: int) -> str:
    """The denoiser that a window was given to."""
    names = {
        part.split("/")[0]
        for example in objective.examples(window, CounterRng(key))
        for part in example.targets
    }
    [name] = names
    return name


GOLDEN = {
    "ul2": {
        "x3_50": (1 / 7, "NLG", 0.5, 3.0),
        "r3_15": (1 / 7, "NLU", 0.15, 3.0),
        "r8_15": (1 / 7, "NLU", 0.15, 8.0),
        "x8_50": (1 / 7, "NLG", 0.5, 8.0),
        "x64_15": (1 / 7, "NLG", 0.15, 64.0),
        "x64_50": (1 / 7, "NLG", 0.5, 64.0),
        "s": (1 / 7, "S2S", 0.25, None),
    },
    "ul2r": {
        "x3_50": (0.125, "NLG", 0.5, 3.0),
        "r3_15": (0.25, "NLU", 0.15, 3.0),
        "x32_15": (0.125, "NLG", 0.15, 32.0),
        "s": (0.5, "S2S", 0.25, None),
    },
}


@RECIPES
@pytest.mark.parametrize("mode_tokens", [True, False])
def test_the_recipes_are_those_of_the_papers(recipe: str, mode_tokens: bool) -> None:
    objective = mixture(recipe=recipe, mode_tokens=mode_tokens)
    expected = GOLDEN[recipe]
    assert list(objective.members) == list(expected)
    assert objective.shares(None) == pytest.approx([share for share, *_ in expected.values()])
    for name, (_, mode, rate, mean) in expected.items():
        config = objective.members[name].config
        assert config.mode == (mode if mode_tokens else None)
        if mean is None:
            assert objective.members[name].name == "prefix_lm"
            assert config.target_rate == rate
        else:
            assert objective.members[name].name == "span_corruption"
            assert (config.noise_density, config.mean_span_length, config.compat) == (
                rate,
                mean,
                None,
            )


@RECIPES
def test_windows_are_given_to_denoisers_by_their_weights(recipe: str) -> None:
    objective = mixture(recipe=recipe)
    window = Window(0, 0, (random_piece(12, 0),))
    found = Counter(drawn(objective, window, key) for key in range(3000))
    shares = {name: share for name, (share, *_) in GOLDEN[recipe].items()}
    assert set(found) == set(shares)
    assert_fits([found[name] for name in shares], list(shares.values()))


@RECIPES
@given(drawn_window=sized_windows(), key=keys)
def test_mode_tokens_tell_the_denoiser(
    recipe: str, drawn_window: tuple[int, Window], key: int
) -> None:
    size, window = drawn_window
    for told in (True, False):
        objective = mixture(window=size, recipe=recipe, mode_tokens=told)
        for example in examples_of(objective, window, key):
            [part] = example.targets
            mode = V.modes[GOLDEN[recipe][part.split("/")[0]][1]]
            modes = set(V.modes.values()) & set(example.tokens[:2].tolist())
            assert modes == ({mode} if told else set())


@RECIPES
@given(drawn_window=sized_windows().filter(lambda drawn: bool(drawn[1].pieces)), key=keys)
def test_the_text_of_a_window_is_its_denoisers(
    recipe: str, drawn_window: tuple[int, Window], key: int
) -> None:
    size, window = drawn_window
    objective = mixture(window=size, recipe=recipe)
    name = drawn(objective, window, key)
    alone = objective.members[name].examples(window, CounterRng(key).child(name))
    found = examples_of(objective, window, key)
    assert [e.tokens.tolist() for e in found] == [e.tokens.tolist() for e in alone]


def test_predictions_count_alike_and_share_a_head() -> None:
    heads = mixture().heads
    assert {head.shares for head in heads} == {("targets",)}
    assert {head.module for head in heads} == {"tokens"}
    assert [head.name for head in heads] == [f"{name}/tokens" for name in GOLDEN["ul2"]]


@RECIPES
def test_windows_cost_what_is_said_on_average(recipe: str) -> None:
    objective = mixture(recipe=recipe)
    window = Window(0, 0, (random_piece(50, 0),))
    found = [examples_of(objective, window, key)[0] for key in range(1500)]
    cost = objective.cost(50)
    assert_mean([len(e) for e in found], cost.positions)
    assert_mean([len(t.labels) for e in found for t in e.targets.values()], cost.targets)


@pytest.mark.parametrize("lacking", ["NLU", "NLG", "S2S"])
def test_a_tokenizer_without_a_mode_token_is_refused(lacking: str) -> None:
    modes = {name: token for name, token in V.modes.items() if name != lacking}
    vocabulary = V.model_copy(update={"modes": modes})
    with pytest.raises(ConfigError, match=rf"the tokenizer has no mode token \[{lacking}\]"):
        mixture(vocabulary)
    mixture(vocabulary, mode_tokens=False)


@RECIPES
def test_the_denoiser_of_most_spans_sets_the_largest_window(recipe: str) -> None:
    """Half of the text in spans of 3: with 100 sentinels 597 tokens at most."""
    ids = list(range(V.size, V.size + 100))
    vocabulary = V.model_copy(update={"size": V.size + 100, "sentinels": ids})
    mixture(vocabulary, window=597, recipe=recipe)
    for window in (598, 4000):
        with pytest.raises(ConfigError, match=rf"W = {window} .*: data.window up to 597 fits"):
            mixture(vocabulary, window=window, recipe=recipe)


def test_prompts_are_those_of_the_sequential_denoiser() -> None:
    prompt = mixture().prompt(np.array([50, 51]))
    assert prompt is not None
    assert prompt.tokens.tolist() == [V.bos, V.modes["S2S"], 50, 51]


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"objective\.recipe"):
        mixture(recipe="t5")
