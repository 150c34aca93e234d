from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megapt.config import ObjectiveSection, Origins
from megapt.data import CounterRng, Example, HeadSpec, Window
from megapt.errors import ConfigError
from megapt.objectives import Context, Cost, Objective, build_objective
from megapt.objectives.mixture import Mixture, MixtureConfig
from tests.chance import assert_fits
from tests.objectives.builders import LABELS, build
from tests.windows import VOCABULARY, keys, make_piece, windows

TWO = {"left": {"name": "arlm"}, "right": {"name": "mlm", "mask_rate": 0.3}}


def mixture(steps: int | None = None, members: Any = TWO, **settings: Any) -> Mixture:
    section = ObjectiveSection(name="mixture", members=members, **settings)
    context = Context(VOCABULARY, 1000, LABELS, steps=steps)
    built = build_objective(section, context, Origins())
    assert isinstance(built, Mixture)
    return built


def refusal(**settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        mixture(**settings)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    return text


def window_at(step: int | None, index: int = 0) -> Window:
    return Window(0, index, (make_piece(list(range(50, 70))),), step=step)


def drawn(objective: Mixture, window: Window, *key: int | str) -> str:
    """The member that a window was given to."""
    names = {
        part.split("/")[0]
        for example in objective.examples(window, CounterRng(*key))
        for part in example.targets
    }
    [name] = names
    return name


def share_of(objective: Mixture, member: str, step: int | None, draws: int = 2000) -> float:
    window = window_at(step)
    return sum(drawn(objective, window, key) == member for key in range(draws)) / draws


@given(windows, keys)
def test_a_window_is_its_members_window(window: Window, key: int) -> None:
    """Whoever is drawn makes of it what it makes alone, from a stream of its own."""
    objective = mixture()
    mixed = objective.examples(window, CounterRng(key))
    alone = {
        name: member.examples(window, CounterRng(key).child(name))
        for name, member in objective.members.items()
    }

    def plain(examples: Any, lead: str = "") -> list[Any]:
        return [
            (
                example.tokens.tolist(),
                {f"{lead}{head}": asked.labels.tolist() for head, asked in example.targets.items()},
            )
            for example in examples
        ]

    assert plain(mixed) in [plain(examples, f"{name}/") for name, examples in alone.items()]


def test_huge_weights_are_weights() -> None:
    assert mixture(weights={"left": 1e308, "right": 1e308}).shares(0).tolist() == [0.5, 0.5]


def test_a_text_is_classified_as_the_member_sees_it_that_knows_classes() -> None:
    members = {"a": {"name": "arlm"}, "c": {"name": "msc"}}
    example = mixture(members=members).classified(np.array([50, 51]))
    assert example is not None
    assert example.tokens.tolist() == [VOCABULARY.cls, 50, 51, VOCABULARY.sep]
    assert list(example.targets) == ["class"]
    assert mixture().classified(np.array([50])) is None


def test_members_are_drawn_by_their_weights() -> None:
    members = {"a": {"name": "arlm"}, "b": {"name": "mlm"}, "c": {"name": "mgm"}}
    objective = mixture(members=members, weights={"a": 5.0, "b": 2.0, "c": 3.0})
    window = window_at(0)
    names = [drawn(objective, window, "weights", key) for key in range(4000)]
    assert_fits([names.count(name) for name in "abc"], [0.5, 0.2, 0.3])


def test_without_weights_all_members_are_alike() -> None:
    assert mixture().shares(0).tolist() == [0.5, 0.5]


def test_a_member_of_weight_0_is_never_drawn() -> None:
    assert share_of(mixture(weights={"right": 0.0}), "left", 0) == 1.0


def test_a_schedule_changes_the_weights_at_its_steps() -> None:
    schedule = [{"step": 10, "weights": {"left": 3.0}}, {"share": 0.6, "weights": {"left": 0.0}}]
    objective = mixture(steps=100, weights={"left": 0.0}, schedule=schedule)
    left = {step: objective.shares(step)[0] for step in (0, 9, 10, 59, 60, 99, 1000, None)}
    assert left == {0: 0, 9: 0, 10: 0.75, 59: 0.75, 60: 0, 99: 0, 1000: 0, None: 0}
    assert share_of(objective, "left", 9) == 0
    assert share_of(objective, "left", 10) == pytest.approx(0.75, abs=0.04)


def test_held_out_windows_are_measured_as_at_the_end() -> None:
    objective = mixture(steps=10, schedule=[{"share": 0.6, "weights": {"left": 0.0}}])
    assert share_of(objective, "right", None) == 1.0


def test_the_draw_belongs_to_the_window() -> None:
    objective = mixture()
    window = window_at(3)
    assert len({drawn(objective, window, 7, "w") for _ in range(5)}) == 1
    assert len({drawn(objective, window, 7, index) for index in range(40)}) == 2


def test_heads_of_one_kind_share_their_weights_and_report_for_each_member() -> None:
    members = {"plain": {"name": "mlm"}, "bert": {"name": "bert"}, "causal": {"name": "arlm"}}
    heads = mixture(members=members).heads
    assert [(head.name, head.owner) for head in heads] == [
        ("plain/tokens", "tokens"),
        ("bert/tokens", "tokens"),
        ("bert/nsp", "nsp"),
        ("causal/tokens", "tokens"),
    ]
    assert {head.shares for head in heads} == {("windows",)}


def test_heads_that_differ_keep_weights_of_their_own() -> None:
    members = {"pair": {"name": "nsp"}, "cls": {"name": "nsp", "pooling": "cls"}}
    assert [head.owner for head in mixture(members=members).heads] == ["nsp", "cls/nsp"]


def test_weights_of_parts_are_kept() -> None:
    members = {
        "one": {"name": "bert", "pair_weight": 0.25},
        "two": {"name": "nsp", "pooling": "cls"},
    }
    heads = {head.name: head for head in mixture(members=members, loss="targets").heads}
    assert heads["one/nsp"].weight == 0.25
    assert heads["one/nsp"].owner == heads["two/nsp"].owner
    assert heads["two/nsp"].shares == ("targets",)


def test_attention_is_that_of_the_members_or_any() -> None:
    assert mixture().attention == "prefix"
    members = {"a": {"name": "mlm"}, "b": {"name": "nsp"}}
    assert mixture(members=members).attention == "bidirectional"


def test_segments_are_the_most_that_a_member_tells_apart() -> None:
    assert mixture().segments == 0
    members = {"a": {"name": "arlm"}, "b": {"name": "mixture", "members": {"g": {"name": "mgm"}}}}
    assert mixture(members=members).segments == 2


def test_cost_is_the_mean_and_the_longest_example_the_longest() -> None:
    members = {"a": {"name": "arlm"}, "b": {"name": "mgm"}}
    objective = mixture(members=members, weights={"a": 3.0, "b": 1.0})
    assert objective.cost(100).positions == 0.75 * 101 + 0.25 * 203
    assert objective.cost(100).targets == 101
    assert objective.longest_example(100) == 203


def test_it_answers_as_the_first_member_that_can() -> None:
    tokens = np.array([50, VOCABULARY.mask])
    members = {"m": {"name": "mlm"}, "g": {"name": "mgm"}, "a": {"name": "arlm"}}
    objective = mixture(members=members)
    assert objective.rewrites
    masked, prompt = objective.masked(tokens), objective.prompt(tokens)
    assert masked is not None
    assert prompt is not None
    assert list(masked.targets) == ["tokens"]
    assert len(prompt) == 5
    assert objective.present(tokens).visible.all()
    assert mixture(members={"n": {"name": "nsp"}}).prompt(tokens) is None
    assert mixture(members={"n": {"name": "nsp"}}).masked(tokens) is None


class Odd(Objective):
    """Calls its heads as others do, though they are of another kind."""

    name = "odd"
    attention = "bidirectional"

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        return (HeadSpec("tokens", "sequence", 2), HeadSpec("class", "sequence", 5))

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        return []

    def cost(self, tokens: int) -> Cost:
        return Cost(1, 1)


def test_what_is_asked_of_it_is_asked_of_the_modules_of_the_member_that_answers() -> None:
    usual = mixture(members={name: {"name": name} for name in ("nsp", "arlm", "mlm", "msc")})
    members = {"odd": Odd(None, usual.context), **usual.members}
    sections = {name: ObjectiveSection(name=name) for name in members}
    objective = Mixture(MixtureConfig(members=sections), usual.context, members)
    text = np.array([50, VOCABULARY.mask])
    masked, classified = objective.masked(text), objective.classified(text)
    heads = (objective.next_token_head, objective.masked_token_head, objective.class_head)
    names = [head.owner for head in heads if head is not None]
    assert names == ["arlm/tokens", "mlm/tokens", "msc/class"]
    assert masked is not None
    assert classified is not None
    assert [*masked.targets, *classified.targets] == names[1:]
    assert objective.uses_labels
    assert not mixture().uses_labels
    nobody = mixture(members={"n": {"name": "nsp"}})
    assert not any((nobody.next_token_head, nobody.masked_token_head, nobody.class_head))


def test_mixtures_may_be_mixed() -> None:
    members = {"inner": {"name": "mixture", "members": TWO}, "mgm": {"name": "mgm"}}
    objective = mixture(members=members)
    assert [(head.name, head.owner, head.shares) for head in objective.heads] == [
        ("inner/left/tokens", "tokens", ("windows", "windows")),
        ("inner/right/tokens", "tokens", ("windows", "windows")),
        ("mgm/tokens", "tokens", ("windows",)),
    ]
    masked, head = objective.masked(np.array([50])), objective.masked_token_head
    assert head is not None
    assert masked is not None
    assert (head.name, [*masked.targets]) == ("inner/right/tokens", ["tokens"])
    for key in range(20):
        for example in objective.examples(window_at(0), CounterRng(key)):
            assert set(example.targets) <= {head.name for head in objective.heads}


@given(st.integers(0, 200))
def test_a_share_of_the_run_is_rounded_to_a_step(steps: int) -> None:
    if 0 < round(0.6 * steps) < steps:
        objective = mixture(steps=steps, schedule=[{"share": 0.6, "weights": {"left": 0.0}}])
        assert objective.shares(round(0.6 * steps))[0] == 0
        assert objective.shares(round(0.6 * steps) - 1)[0] == 0.5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weights": {"up": 1.0}}, "'up'; the members are left, right"),
        ({"weights": {"left": 0.0, "right": 0.0}}, "from step 0 on, all members have weight 0"),
        ({"schedule": [{"step": 5, "weights": {"left": 0.0, "right": 0.0}}]}, "from step 5 on"),
        ({"schedule": [{"weights": {"left": 0.0}}]}, "either step or share"),
        ({"schedule": [{"step": 3, "share": 0.3, "weights": {}}]}, "either step or share"),
        ({"schedule": [{"share": 0.3, "weights": {}}]}, "budget in raw_tokens"),
        (
            {"schedule": [{"step": 9, "weights": {}}, {"step": 3, "weights": {}}]},
            "[0, 9, 3]; they should rise",
        ),
        ({"members": {}}, "at least 1"),
        ({"members": {"v.2": {"name": "mlm"}}}, "'v.2' has a dot"),
        ({"schedule": [{"step": 9, "weights": {}}], "steps": 9}, "the budget ends after 9 steps"),
        ({"schedule": [{"share": 0.01, "weights": {}}], "steps": 9}, "including the first weights"),
        ({"members": {"a": {"name": "mlmm"}}}, "objective.members.a.name: no objective named"),
        ({"members": {"a": {"name": "mlm", "rate": 1}}}, "objective.members.a.rate: unknown key"),
    ],
)
def test_what_makes_no_mixture_is_refused_in_one_line(settings: Any, says: str) -> None:
    assert says in refusal(**settings)


def test_the_preset_mixes_two() -> None:
    objective = build("mixture")
    assert isinstance(objective, Mixture)
    assert objective.members.keys() == {"arlm", "mlm"}
    assert objective.shares(0).tolist() == [0.5, 0.5]
