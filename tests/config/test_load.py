from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megapt.config import CompareConfig, load_config
from tests.config.loading import RUN, SMALL, Write, changed, load, refusal


def test_sections_are_written_out_named_or_left_to_their_defaults(run_file: Path) -> None:
    config = load(run_file)
    assert config.output == "runs/test"
    assert config.model.hidden_size == 16
    assert config.objective.name == "mlm"
    assert config.training.budget.amount == 1000
    assert config.optimizer.lr == 1e-3


def test_a_named_section_may_be_changed(run_file: Path) -> None:
    changed(run_file, "model: small", "model:\n  base: small\n  num_layers: 7")
    config = load(run_file)
    assert (config.model.num_layers, config.model.hidden_size) == (7, 16)


def test_a_base_may_have_a_base(run_file: Path, write: Write) -> None:
    write("model/wide.yaml", "base: small\nhidden_size: 64\n")
    write("model/wide-deep.yaml", "base: wide\nnum_layers: 9\n")
    model = load(changed(run_file, "small", "wide-deep")).model
    assert (model.num_layers, model.hidden_size, model.intermediate_size) == (9, 64, 32)


def test_a_run_may_be_based_on_another(run_file: Path, write: Write) -> None:
    child = write("run/child.yaml", "base: test\nseed: 5\ntraining: {micro_batch_size: 2}\n")
    config = load(child)
    assert (config.seed, config.training.micro_batch_size) == (5, 2)
    assert (config.training.budget.amount, config.model.hidden_size) == (1000, 16)


def test_a_section_named_anew_in_a_child_keeps_nothing_of_the_old_one(
    run_file: Path, write: Write
) -> None:
    write("model/plain.yaml", SMALL)
    changed(run_file, "model: small", "model: {base: small, dropout: 0.5}")
    child = write("run/child.yaml", "base: test\nmodel: plain\n")
    assert load(child).model.dropout == 0.0


def test_a_section_based_anew_in_a_child_is_that_base(run_file: Path, write: Write) -> None:
    write("model/big.yaml", SMALL.replace("num_layers: 2", "num_layers: 24"))
    child = write("run/child.yaml", "base: test\nmodel: {base: big, dropout: 0.5}\n")
    model = load(child).model
    assert (model.num_layers, model.dropout) == (24, 0.5)


def test_a_preset_may_be_a_path_beside_the_file(run_file: Path, write: Write) -> None:
    write("run/mine/model.yaml", SMALL.replace("16", "32"))
    assert load(changed(run_file, "small", "mine/model.yaml")).model.hidden_size == 32


def test_the_nearest_folder_wins_over_what_ships_with_megapt(run_file: Path, write: Write) -> None:
    write("model/modern.yaml", SMALL)
    assert load(changed(run_file, "small", "modern")).model.num_layers == 2
    (run_file.parent.parent / "model" / "modern.yaml").unlink()
    assert load(run_file).model.num_layers == 12


def test_a_circle_of_bases_is_refused(run_file: Path, write: Write) -> None:
    write("model/small.yaml", "base: large\n")
    write("model/large.yaml", "base: small\n")
    text = refusal(run_file)
    assert text.startswith(f"{run_file.parent.parent}/model/large.yaml:1: model.base: 'small' is ")
    assert text.endswith("small -> large -> small is a cycle")


@pytest.mark.parametrize("member", ["loop", "{base: loop, loss: all}"])
def test_a_mixture_of_itself_is_refused(run_file: Path, write: Write, member: str) -> None:
    loop = write("objective/loop.yaml", f"name: mixture\nmembers:\n  a: {member}\n")
    text = refusal(changed(run_file, "mlm", "loop"))
    key = "objective.members.a" + (".base" if "base" in member else "")
    assert text.startswith(f"{loop}:3: {key}: 'loop' is this file itself: loop -> loop is")


def test_a_circle_of_mixtures_is_refused(run_file: Path, write: Write) -> None:
    write("objective/ping.yaml", "name: mixture\nmembers: {a: pong}\n")
    pong = write("objective/pong.yaml", "name: mixture\nmembers: {b: ping}\n")
    text = refusal(changed(run_file, "mlm", "ping"))
    assert text.startswith(f"{pong}:2: objective.members.a.members.b: 'ping' is already being read")
    assert "ping -> pong -> ping" in text


def test_members_of_a_comparison_are_objectives(run_file: Path, write: Write) -> None:
    members = "members:\n  plain: mlm\n  spans: {base: mlm, unit: span}\n  own: {name: arlm}\n"
    file = write("compare/test.yaml", RUN.replace("objective: mlm\n", members))
    config, _ = load_config(CompareConfig, file, ["members.own.name=nsp"])
    assert {key: member.name for key, member in config.members.items()} == {
        "plain": "mlm",
        "spans": "mlm",
        "own": "nsp",
    }
    assert config.members["spans"].model_extra["unit"] == "span"  # type: ignore[index]


def test_a_member_may_be_named_anew_on_the_command_line(run_file: Path, write: Write) -> None:
    file = write("compare/test.yaml", RUN.replace("objective: mlm", "members: {plain: mlm}"))
    config, _ = load_config(CompareConfig, file, ["members.plain=arlm"])
    assert config.members["plain"].name == "arlm"
    assert not config.members["plain"].model_extra


def names(value: Any) -> Any:
    """The names of a mixture's members, member by member."""
    if "members" not in value:
        return value["name"]
    return {key: names(member) for key, member in value["members"].items()}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["objective.members.x=mgm"], {"arlm": "arlm", "mlm": "mlm", "x": "mgm"}),
        (["objective.members.mlm=nsp"], {"arlm": "arlm", "mlm": "nsp"}),
        (["objective.members={a: mgm, b: {base: nsp}}"], {"a": "mgm", "b": "nsp"}),
        (["objective.members={a: mgm}", "objective.members.b=sop"], {"a": "mgm", "b": "sop"}),
        (["objective.members.b=sop", "objective.members={a: mgm}"], {"a": "mgm", "b": "sop"}),
        (
            ["objective.members={mix: mixture}", "objective.members.mix.members.x=nsp"],
            {"mix": {"arlm": "arlm", "mlm": "mlm", "x": "nsp"}},
        ),
        (["objective={name: mixture, members: {a: mgm}}"], {"a": "mgm"}),
        (
            ["objective.members.arlm={base: mlm, unit: word}"],
            {"arlm": "mlm", "mlm": "mlm"},
        ),
    ],
)
def test_members_of_a_mixture_are_named_on_the_command_line_as_in_a_file(
    run_file: Path, words: list[str], expected: Any
) -> None:
    first = [] if words[0].startswith("objective={") else ["objective=mixture"]
    section = load(run_file, *words, *first).objective
    assert names(section.model_dump()) == expected


def test_weights_of_members_that_are_gone_go_with_them(run_file: Path) -> None:
    words = ["objective=mixture", "objective.members={a: mgm, b: nsp}"]
    assert "weights" not in (load(run_file, *words).objective.model_extra or {})
    weighed = load(run_file, "objective.weights={a: 3}", *words).objective
    assert (weighed.model_extra or {})["weights"] == {"a": 3}
    assert (load(run_file, "objective=mixture").objective.model_extra or {})["weights"]


def test_members_of_a_comparison_named_anew_leave_the_schedule(
    run_file: Path, write: Write
) -> None:
    text = RUN.replace("objective: mlm", "members: {plain: mlm}\nschedule: {name: linear}")
    config, _ = load_config(CompareConfig, write("compare/t.yaml", text), ["members={a: arlm}"])
    assert list(config.members) == ["a"]
    assert config.schedule.name == "linear"


def test_a_member_named_anew_keeps_nothing_of_the_old_one(run_file: Path) -> None:
    words = ["objective=mixture", "objective.members.mlm=nsp", "objective.members.arlm.x=3"]
    members = load(run_file, *words).objective.model_extra["members"]  # type: ignore[index]
    assert "mask_rate" not in members["mlm"]
    assert members["arlm"]["x"] == 3


def test_members_of_a_mixture_in_a_comparison_can_be_named(run_file: Path, write: Write) -> None:
    file = write("compare/test.yaml", RUN.replace("objective: mlm", "members: {mix: mixture}"))
    config, _ = load_config(CompareConfig, file, ["members.mix.members.x=nsp"])
    assert names(config.members["mix"].model_dump()) == {"arlm": "arlm", "mlm": "mlm", "x": "nsp"}


def test_a_misspelt_member_is_answered_with_the_nearest(run_file: Path) -> None:
    text = refusal(run_file, "objective=mixture", "objective.members.x=mlmm")
    assert text.startswith("command line: objective.members.x: no preset named 'mlmm'")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ("{a b/c: mlm}", "members.a b/c: a name may have only letters, digits, _, - and ."),
        ("{.a: mlm}", "members..a: a name may have only letters, digits, _, - and ., and may not"),
        ("{1: mlm}", "members.1: the name 1 is not text; write it in quotes"),
        ("{a: 3}", "members.a: should be a section of keys and values, not 3"),
    ],
)
def test_a_member_with_a_wrong_name_is_told_what_a_name_is(
    run_file: Path, write: Write, members: str, said: str
) -> None:
    file = write("compare/test.yaml", RUN.replace("objective: mlm", f"members: {members}"))
    text = refusal(file, schema=CompareConfig)
    assert text.startswith(f"{file}:5: {said}")
    assert "pattern" not in text


def test_interpolations_are_resolved(run_file: Path) -> None:
    changed(run_file, "output: runs/test", "seed: 3\noutput: runs/${seed}")
    assert load(run_file, "seed=4").output == "runs/4"


def test_chinese_text_is_read(run_file: Path) -> None:
    assert load(changed(run_file, "runs/test", "runs/中文")).output == "runs/中文"
