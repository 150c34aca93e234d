from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import CounterRng, Example, Window
from megapt.errors import ConfigError
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, windows

V = VOCABULARY
masking_units = st.sampled_from(["token", "word", "ngram", "span"])


def test_golden_layout() -> None:
    piece = make_piece([50, 51, 52], document=4)
    [example] = examples_of(build("electra"), Window(0, 0, (piece,)), 0)
    [place] = np.flatnonzero(example.tokens == V.mask)  # the budget is below one token: one
    tokens = [V.cls, 50, 51, 52, V.sep]
    generator, detection = example.targets["generator"], example.targets["detection"]
    assert generator.positions.tolist() == [place]
    assert generator.labels.tolist() == [tokens[place]]
    tokens[place] = V.mask
    assert example.tokens.tolist() == tokens
    assert detection.positions.tolist() == [1, 2, 3]
    assert detection.labels.tolist() == [int(at == place) for at in (1, 2, 3)]
    assert example.document == 4


def restored(example: Example) -> list[int]:
    tokens: list[int] = example.tokens.tolist()
    target = example.targets["generator"]
    for place, label in zip(target.positions.tolist(), target.labels.tolist(), strict=True):
        tokens[place] = label
    return tokens


@given(windows, keys, masking_units)
def test_labels_put_back_give_the_text_of_every_piece(window: Window, key: int, unit: str) -> None:
    examples = examples_of(build("electra", unit=unit), window, key)
    assert [restored(example) for example in examples] == [
        [V.cls, *piece.tokens.tolist(), V.sep] for piece in window.pieces
    ]


@given(windows, keys, masking_units)
def test_the_generator_is_asked_at_the_masks_once_each(window: Window, key: int, unit: str) -> None:
    for example in examples_of(build("electra", unit=unit), window, key):
        masks = np.flatnonzero(example.tokens == V.mask)
        assert len(masks) > 0
        assert example.targets["generator"].positions.tolist() == masks.tolist()


@given(windows, keys)
def test_every_token_of_the_text_is_asked_whether_it_was_replaced(window: Window, key: int) -> None:
    examples = examples_of(build("electra"), window, key)
    for example, piece in zip(examples, window.pieces, strict=True):
        target = example.targets["detection"]
        assert target.positions.tolist() == list(range(1, len(piece.tokens) + 1))
        # Replaced at the masks; the model knows better once the generator has written.
        assert target.labels.tolist() == (example.tokens[1:-1] == V.mask).tolist()
        assert example.positions.tolist() == list(range(len(example)))
        assert not example.segments.any()
        assert example.visible.all()


@given(windows, keys)
def test_every_mask_has_a_draw_that_stays_below_1(window: Window, key: int) -> None:
    for example in examples_of(build("electra"), window, key):
        target = example.targets["generator"]
        assert target.draws is not None
        assert len(target.draws) == len(target.labels)
        assert target.draws.dtype == np.float32
        assert ((target.draws >= 0) & (target.draws < 1)).all()
        assert example.targets["detection"].draws is None


def test_draws_are_uniform_and_their_own() -> None:
    window = Window(0, 0, (random_piece(1000, 1),))
    objective = build("electra")
    drawn = [
        draws
        for key in range(20)
        for draws in [examples_of(objective, window, key)[0].targets["generator"].draws]
        if draws is not None
    ]
    draws = np.concatenate(drawn)
    assert_fits(np.bincount((draws * 20).astype(np.int64), minlength=20), np.ones(20))
    assert len(np.unique(draws)) > 0.99 * len(draws)


class Largest(CounterRng):
    """A stream whose every draw has all bits set."""

    def bits(self, n: int) -> np.ndarray:
        return np.full(n, 2**64 - 1, dtype=np.uint64)


def test_the_largest_draw_is_below_1_as_float32() -> None:
    [example] = build("electra").examples(Window(0, 0, (make_piece([50, 51]),)), Largest(0))
    draws = example.targets["generator"].draws
    assert draws is not None
    assert np.float32(0.9999) < draws.astype(np.float32).max() < 1


@pytest.mark.parametrize("rate", [0.15, 0.3])
def test_the_share_of_masks_is_the_mask_rate(rate: float) -> None:
    objective, window = build("electra", mask_rate=rate), Window(0, 0, (random_piece(61, 1),))
    targets = [
        sum(
            len(target.labels) for target in examples_of(objective, window, key)[0].targets.values()
        )
        for key in range(1500)
    ]
    assert_mean(np.array(targets), 61 + rate * 61)
    assert objective.cost(61).targets == pytest.approx(61 + rate * 61)
    assert objective.cost(61).positions == 63


def test_a_share_of_the_masked_tokens_may_stay() -> None:
    """The 85 and 15 in 100 of the published code."""
    objective = build("electra", mask_replace_prob=0.85)
    piece = make_piece([50] * 20_000)
    [example] = examples_of(objective, Window(0, 0, (piece,)), "shares")
    seen = example.tokens[example.targets["generator"].positions]
    assert set(seen.tolist()) == {50, V.mask}
    assert_fits([(seen == V.mask).sum(), (seen == 50).sum()], [0.85, 0.15])


def test_a_generator_and_a_detection_head() -> None:
    generator, detection = build("electra", detection_loss_weight=20, generator_size=0.5).heads
    assert (generator.name, generator.kind) == ("generator", "generator")
    assert (generator.weight, generator.scale) == (1, 0.5)
    assert (detection.name, detection.kind, detection.weight) == ("detection", "detection", 20)
    assert (detection.classes, detection.labels) == (2, ("original", "replaced"))


def test_the_trunk_is_shown_plain_text_and_fills_no_masks() -> None:
    objective = build("electra")
    assert objective.present(np.array([50, 51])).tokens.tolist() == [V.cls, 50, 51, V.sep]
    assert objective.masked(np.array([50, V.mask])) is None
    assert objective.prompt(np.array([50])) is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("detection_loss_weight", 0),
        ("detection_loss_weight", -1),
        ("generator_size", 0),
        ("generator_size", 1.5),
        ("mask_rate", 0),
        ("mask_rate", 1),
        ("mask_replace_prob", -0.1),
        ("compat", "bert"),
        ("temperature", 1.0),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, value: object) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigError, match=setting):
        build("electra", **settings)


def test_the_settings_without_a_preset_are_those_of_the_preset() -> None:
    assert type(build("electra").config)() == build("electra").config
