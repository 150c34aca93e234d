from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.data import Example, Window
from megapt.errors import ConfigError
from tests.chance import assert_fits, assert_mean
from tests.objectives.builders import build, examples_of
from tests.windows import VOCABULARY, keys, make_piece, random_piece, windows

V = VOCABULARY
PREFIX = build("prefix_lm")
rates = st.sampled_from([0.01, 0.1, 0.25, 0.4, 0.5])
modes = st.sampled_from([None, "NLU", "NLG", "S2S"])


def shown(example: Example) -> int:
    """Tokens of text that all see."""
    return int(np.isin(example.tokens[example.visible], V.reserved, invert=True).sum())


def shortest(n: int, rate: float) -> int:
    return min(max(1, round((1 - 2 * rate) * (n - 1))), n - 1)


@given(windows, rates, modes, keys)
def test_prefix_and_targets_are_the_text(
    window: Window, rate: float, mode: str | None, key: int
) -> None:
    objective = build("prefix_lm", target_rate=rate, mode=mode)
    examples = examples_of(objective, window, key)
    for piece, example in zip(window.pieces, examples, strict=True):
        asked, size = example.targets["tokens"], int(example.visible.sum())
        text = [*example.tokens[:size].tolist(), *asked.labels.tolist()]
        assert example.document == piece.document
        assert text == [
            *([V.bos] if piece.starts_document else []),
            *([] if mode is None else [V.modes[mode]]),
            *piece.tokens.tolist(),
            *([V.eos] if piece.ends_document else []),
        ]
        assert example.visible[:size].all()
        assert example.tokens.tolist() == text[:-1]
        assert asked.positions.tolist() == list(range(size - 1, len(text) - 1))
        assert example.positions.tolist() == list(range(len(text) - 1))
        assert not example.segments.any()


@given(windows, rates, keys)
def test_prefixes_have_a_length_of_the_rule(window: Window, rate: float, key: int) -> None:
    examples = examples_of(build("prefix_lm", target_rate=rate, mode="S2S"), window, key)
    for piece, example in zip(window.pieces, examples, strict=True):
        n = len(piece.tokens)
        assert shortest(n, rate) <= shown(example) <= n - 1


@pytest.mark.parametrize(
    ("n", "rate", "lengths"),
    [
        (2, 0.5, range(1, 2)),
        (9, 0.5, range(1, 9)),
        (9, 0.25, range(4, 9)),
        (10, 0.25, range(4, 10)),  # 4.5 -> 4
        (12, 0.25, range(6, 12)),  # 5.5 -> 6
        (21, 0.25, range(10, 21)),
        (11, 0.1, range(8, 11)),
        (9, 0.01, range(8, 9)),
    ],
)
def test_prefixes_of_every_length_are_equally_likely(n: int, rate: float, lengths: range) -> None:
    window = Window(0, 0, tuple(random_piece(n, 0, document=d) for d in range(4000)))
    found = Counter(map(shown, examples_of(build("prefix_lm", target_rate=rate), window, 0)))
    assert sorted(found) == list(lengths)
    if len(lengths) > 1:
        assert_fits([found[k] for k in lengths], np.ones(len(lengths)))


@pytest.mark.parametrize(
    ("starts", "ends", "inputs", "labels"),
    [
        (True, True, [V.bos, 50], [50, V.eos]),
        (True, False, [V.bos], [50]),
        (False, True, [50], [V.eos]),
        (False, False, None, None),
    ],
)
def test_a_text_of_one_token_is_predicted_from_bos_alone(
    starts: bool, ends: bool, inputs: list[int] | None, labels: list[int] | None
) -> None:
    piece = make_piece([50], starts_document=starts, ends_document=ends)
    examples = examples_of(PREFIX, Window(0, 0, (piece,)), 0)
    assert [e.tokens.tolist() for e in examples] == ([inputs] if inputs else [])
    assert [e.targets["tokens"].labels.tolist() for e in examples] == ([labels] if labels else [])
    assert all(e.visible.tolist() == [True, False][: len(e)] for e in examples)


def test_a_mode_token_is_enough_to_predict_from() -> None:
    piece = make_piece([50], starts_document=False, ends_document=False)
    [example] = examples_of(build("prefix_lm", mode="S2S"), Window(0, 0, (piece,)), 0)
    assert example.tokens.tolist() == [V.modes["S2S"]]
    assert example.targets["tokens"].labels.tolist() == [50]


@pytest.mark.parametrize("mode", [None, "S2S"])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 60])
def test_examples_cost_what_is_said(n: int, rate: float, mode: str | None) -> None:
    objective = build("prefix_lm", target_rate=rate, mode=mode)
    window = Window(0, 0, tuple(random_piece(n, 0, document=d) for d in range(400)))
    examples = examples_of(objective, window, 0)
    cost = objective.cost(n)
    assert_mean([len(example) for example in examples], cost.positions)
    assert_mean([len(example.targets["tokens"].labels) for example in examples], cost.targets)


def test_golden_costs() -> None:
    half, quarter = PREFIX.cost(512), build("prefix_lm", target_rate=0.25).cost(512)
    assert (half.positions, half.targets) == (513, 512 - (1 + 511) / 2 + 1)
    assert (quarter.positions, quarter.targets) == (513, 512 - (256 + 511) / 2 + 1)


def test_keys_draw_different_prefixes() -> None:
    window = Window(0, 0, (random_piece(1000, 0),))
    found = {shown(examples_of(PREFIX, window, key)[0]) for key in range(20)}
    assert len(found) > 15


@pytest.mark.parametrize("rate", [0.0, 0.51, 1.0])
def test_rates_out_of_range_are_refused(rate: float) -> None:
    with pytest.raises(ConfigError, match=r"objective\.target_rate"):
        build("prefix_lm", target_rate=rate)


def test_a_mode_that_the_tokenizer_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer has no mode token \[S2S\] .*none"):
        build("prefix_lm", V.model_copy(update={"modes": {}}), mode="S2S")


def test_texts_and_prompts_are_seen_by_all() -> None:
    objective, text = build("prefix_lm", mode="S2S"), np.array([50, 51])
    prompt = objective.prompt(text)
    assert prompt is not None
    assert objective.present(text).tokens.tolist() == [V.bos, 50, 51]
    assert prompt.tokens.tolist() == [V.bos, V.modes["S2S"], 50, 51]
    for example in (objective.present(text), prompt):
        assert example.visible.all()
        assert not example.targets


def test_one_token_head() -> None:
    assert [(h.name, h.kind, h.weight) for h in PREFIX.heads] == [("tokens", "token", 1)]
