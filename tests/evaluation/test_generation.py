"""Generation: draws, ends, refusals; and the repetition measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from megapt.config import ObjectiveSection, Origins
from megapt.data import Batch
from megapt.errors import ConfigError
from megapt.evaluation import LoadedRun, generate, repetition
from megapt.objectives import build_objective
from tests.chance import assert_fits

Overfitted = Callable[[str], LoadedRun]


class Dice:
    """A model that ignores its input: it gives each token a fixed probability."""

    def __init__(self, vocabulary: int, shares: Mapping[int, float]) -> None:
        self._logits = torch.full((vocabulary,), -50.0)
        for token, share in shares.items():
            self._logits[token] = np.log(share)
        self.furthest = 0

    def predict(self, batch: Batch, head: str) -> Tensor:
        self.furthest = max(self.furthest, int(batch.positions.max()))
        return self._logits.repeat(len(batch.targets[head]), 1)


def throwing(run: LoadedRun, shares: Mapping[int, float]) -> tuple[LoadedRun, Dice]:
    dice = Dice(run.tokenizer.vocabulary.size, shares)
    model: Any = dice
    return replace(run, model=model), dice


def ids(run: LoadedRun, text: str) -> np.ndarray:
    return run.tokenizer.encode(text).astype(np.int64)


def lists(written: Sequence[np.ndarray]) -> list[list[int]]:
    return [tokens.tolist() for tokens in written]


def test_the_same_seed_writes_the_same(overfitted: Overfitted) -> None:
    run = overfitted("arlm")
    prompts = [ids(run, text) for text in ("The", "A", "", "今天")]

    def write(seed: int, prompts: list[np.ndarray] = prompts) -> list[list[int]]:
        return lists(generate(run, prompts, max_tokens=12, temperature=3.0, top_p=1.0, seed=seed))

    assert write(1) == write(1)
    assert write(1) != write(2)
    # Prompts do not influence one another.
    assert write(1, prompts[:2]) == write(1)[:2]


@pytest.mark.parametrize("coldness", [{"temperature": 0.0}, {"top_p": 1e-9}, {"temperature": 1e-4}])
def test_without_chance_the_likeliest_token_is_taken(
    overfitted: Overfitted, coldness: dict[str, float]
) -> None:
    run, _ = throwing(overfitted("arlm"), {100: 0.5, 200: 0.3, 300: 0.2})
    assert lists(generate(run, [ids(run, "A")], max_tokens=5, **coldness)) == [[100] * 5]


def test_a_prompt_that_leaves_the_positions_is_refused(overfitted: Overfitted) -> None:
    """A mode token and a sentinel stand beside the prompt: together they may be one too many."""
    run = overfitted("ul2")
    objective = replace_mode(run)
    text = np.resize(ids(run, "A wave"), run.longest_text)
    assert generate(objective, [text[:-1]], max_tokens=1)
    with pytest.raises(ConfigError, match=f"reads {run.longest_text - 1} at most"):
        generate(objective, [text], max_tokens=1)


def replace_mode(run: LoadedRun) -> LoadedRun:
    """The run, asked as `span_corruption` with a mode token."""
    section = ObjectiveSection(name="span_corruption", mode="NLG")
    context = run.objective.context
    return replace(run, objective=build_objective(section, context, Origins()))


def test_draws_follow_the_nucleus(overfitted: Overfitted) -> None:
    run, _ = throwing(overfitted("arlm"), {100: 0.5, 200: 0.3, 300: 0.2})
    written = generate(run, [ids(run, "A")] * 2000, max_tokens=1, temperature=1.0, top_p=0.7)
    tokens = np.concatenate(written)
    assert set(tokens.tolist()) == {100, 200}
    assert_fits([(tokens == 100).sum(), (tokens == 200).sum()], [5, 3])


def test_temperature_sharpens_the_draws(overfitted: Overfitted) -> None:
    run, _ = throwing(overfitted("arlm"), {100: 0.75, 200: 0.25})
    written = generate(run, [ids(run, "A")] * 2000, max_tokens=1, temperature=0.5, top_p=1.0)
    tokens = np.concatenate(written)
    assert_fits([(tokens == 100).sum(), (tokens == 200).sum()], [9, 1])


@pytest.mark.parametrize("objective", ["arlm", "mgm"])
def test_the_end_of_text_ends_it_and_is_not_part_of_it(
    overfitted: Overfitted, objective: str
) -> None:
    run = overfitted(objective)
    vocabulary = run.tokenizer.vocabulary
    ending, _ = throwing(run, {vocabulary.eos: 0.9, 100: 0.1})
    assert lists(generate(ending, [ids(run, "A")], max_tokens=5, temperature=0)) == [[]]


@pytest.mark.parametrize("objective", ["arlm", "mgm"])
def test_special_tokens_are_never_written(overfitted: Overfitted, objective: str) -> None:
    run = overfitted(objective)
    vocabulary = run.tokenizer.vocabulary
    special = [token for token in vocabulary.reserved if token != vocabulary.eos]
    dice, _ = throwing(run, {**{token: 0.9 / len(special) for token in special}, 100: 0.1})
    assert lists(generate(dice, [ids(run, "A")], max_tokens=6, temperature=1.0)) == [[100] * 6]


@pytest.mark.parametrize("objective", ["arlm", "mgm"])
def test_writing_stops_at_the_end_of_the_window(overfitted: Overfitted, objective: str) -> None:
    run, dice = throwing(overfitted(objective), {100: 1.0})
    prompts = [ids(run, "The old ship"), ids(run, "A"), np.full(run.longest_text, 100)]
    written = generate(run, prompts, max_tokens=10_000, temperature=0)
    # No position is asked for that was never trained, and none is left unused; the source of a
    # rewriting stands between [CLS] and [SEP].
    window = run.config.data.window
    assert dice.furthest == {"arlm": window - 1, "mgm": window + 1}[objective]
    for prompt, tokens in zip(prompts, written, strict=True):
        before = len(prompt) + 1 if objective == "arlm" else 1
        assert before + len(tokens) - 1 == window


@pytest.mark.parametrize("most", [0, 1, 7])
def test_no_more_tokens_than_asked_for(overfitted: Overfitted, most: int) -> None:
    run, _ = throwing(overfitted("arlm"), {100: 1.0})
    assert [len(tokens) for tokens in generate(run, [ids(run, "A")], max_tokens=most)] == [most]


def test_nothing_asked_nothing_written(overfitted: Overfitted) -> None:
    assert generate(overfitted("arlm"), [], max_tokens=5) == []


@pytest.mark.parametrize("objective", ["mlm", "msc"])
def test_a_trunk_that_sees_both_sides_does_not_generate(
    overfitted: Overfitted, objective: str
) -> None:
    run = overfitted(objective)
    with pytest.raises(ConfigError) as raised:
        generate(run, [ids(run, "A")], max_tokens=5)
    message = str(raised.value)
    assert message.startswith(f"{run.folder}: was trained with '{objective}'")
    assert "arlm" in message
    assert "\n" not in message


@pytest.mark.parametrize("objective", ["arlm", "mgm"])
def test_a_prompt_longer_than_the_window_is_refused(overfitted: Overfitted, objective: str) -> None:
    run = overfitted(objective)
    with pytest.raises(ConfigError, match=f"{run.longest_text + 1} tokens") as raised:
        generate(run, [np.full(run.longest_text + 1, 100)], max_tokens=5)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("tokens", "n", "share"),
    [
        ([1, 2, 3, 4, 5], 4, 0.0),
        ([7] * 8, 4, 1 - 1 / 5),
        ([1, 2, 1, 2, 1, 2], 2, 1 - 2 / 5),
        ([1, 2, 3, 1, 2, 3], 3, 1 - 3 / 4),
        ([5, 5, 5, 6], 1, 0.5),
        ([1, 2, 3, 4], 4, 0.0),
        ([1, 2, 3], 4, None),
        ([], 1, None),
    ],
)
def test_repetition(tokens: list[int], n: int, share: float | None) -> None:
    found = repetition(np.array(tokens, dtype=np.int64), n)
    assert found == (None if share is None else pytest.approx(share))
