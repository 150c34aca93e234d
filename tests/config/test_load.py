from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megapt.config import CompareConfig, RunConfig, load_config
from megapt.errors import ConfigError

RUN = """\
output: runs/test
data:
  corpus: corpora/test
model: small
objective: mlm
training:
  budget:
    amount: 1000
"""
SMALL = """\
layers: 2
hidden: 16
heads: 2
feedforward: 32
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file into the folder of the test's configs and return its path."""

    def write(name: str, text: str | bytes) -> Path:
        file = tmp_path / "configs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            file.write_bytes(text)
        else:
            file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return write


@pytest.fixture
def run_file(write: Write) -> Path:
    write("model/small.yaml", SMALL)
    return write("run/test.yaml", RUN)


def load(file: Path, *overrides: str) -> RunConfig:
    return load_config(RunConfig, file, overrides)[0]


def refusal(file: Path, *overrides: str, schema: type = RunConfig) -> str:
    """The error's text, which must be one line."""
    with pytest.raises(ConfigError) as error:
        load_config(schema, file, overrides)
    text = str(error.value)
    assert len(text.splitlines()) == 1, text
    return text


def changed(run_file: Path, old: str, new: str) -> Path:
    text = run_file.read_text(encoding="utf-8")
    assert old in text
    run_file.write_text(text.replace(old, new), encoding="utf-8")
    return run_file


# --- composition ------------------------------------------------------------------------------


def test_sections_are_written_out_named_or_left_to_their_defaults(run_file: Path) -> None:
    config = load(run_file)
    assert config.output == "runs/test"
    assert config.model.hidden == 16
    assert config.objective.name == "mlm"
    assert config.training.budget.amount == 1000
    assert config.optimizer.lr == 1e-3


def test_a_named_section_may_be_changed(run_file: Path) -> None:
    changed(run_file, "model: small", "model:\n  base: small\n  layers: 7")
    config = load(run_file)
    assert (config.model.layers, config.model.hidden) == (7, 16)


def test_a_base_may_have_a_base(run_file: Path, write: Write) -> None:
    write("model/wide.yaml", "base: small\nhidden: 64\n")
    write("model/wide-deep.yaml", "base: wide\nlayers: 9\n")
    model = load(changed(run_file, "small", "wide-deep")).model
    assert (model.layers, model.hidden, model.feedforward) == (9, 64, 32)


def test_a_run_may_be_based_on_another(run_file: Path, write: Write) -> None:
    child = write("run/child.yaml", "base: test\nseed: 5\ntraining: {micro_batch: 2}\n")
    config = load(child)
    assert (config.seed, config.training.micro_batch) == (5, 2)
    assert (config.training.budget.amount, config.model.hidden) == (1000, 16)


def test_a_section_named_anew_in_a_child_keeps_nothing_of_the_old_one(
    run_file: Path, write: Write
) -> None:
    write("model/plain.yaml", SMALL)
    changed(run_file, "model: small", "model: {base: small, dropout: 0.5}")
    child = write("run/child.yaml", "base: test\nmodel: plain\n")
    assert load(child).model.dropout == 0.0


def test_a_section_based_anew_in_a_child_is_that_base(run_file: Path, write: Write) -> None:
    write("model/big.yaml", SMALL.replace("layers: 2", "layers: 24"))
    child = write("run/child.yaml", "base: test\nmodel: {base: big, dropout: 0.5}\n")
    model = load(child).model
    assert (model.layers, model.dropout) == (24, 0.5)


def test_a_preset_may_be_a_path_beside_the_file(run_file: Path, write: Write) -> None:
    write("run/mine/model.yaml", SMALL.replace("16", "32"))
    assert load(changed(run_file, "small", "mine/model.yaml")).model.hidden == 32


def test_the_nearest_folder_wins_over_what_ships_with_megapt(run_file: Path, write: Write) -> None:
    write("model/modern.yaml", SMALL)
    assert load(changed(run_file, "small", "modern")).model.layers == 2
    (run_file.parent.parent / "model" / "modern.yaml").unlink()
    assert load(run_file).model.layers == 12


def test_a_circle_of_bases_is_refused(run_file: Path, write: Write) -> None:
    write("model/small.yaml", "base: large\n")
    write("model/large.yaml", "base: small\n")
    text = refusal(run_file)
    assert text.startswith(f"{run_file.parent.parent}/model/large.yaml:1: model.base: 'small' is ")
    assert text.endswith("small -> large -> small would never end")


@pytest.mark.parametrize("member", ["loop", "{base: loop, loss: all}"])
def test_a_mixture_of_itself_is_refused(run_file: Path, write: Write, member: str) -> None:
    loop = write("objective/loop.yaml", f"name: mixture\nmembers:\n  a: {member}\n")
    text = refusal(changed(run_file, "mlm", "loop"))
    key = "objective.members.a" + (".base" if "base" in member else "")
    assert text.startswith(f"{loop}:3: {key}: 'loop' is this file itself: loop -> loop would")


def test_a_circle_of_mixtures_is_refused(run_file: Path, write: Write) -> None:
    write("objective/ping.yaml", "name: mixture\nmembers: {a: pong}\n")
    pong = write("objective/pong.yaml", "name: mixture\nmembers: {b: ping}\n")
    text = refusal(changed(run_file, "mlm", "ping"))
    assert text.startswith(f"{pong}:2: objective.members.a.members.b: 'ping' is a file that led")
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
        ("{a b/c: mlm}", "members.a b/c: a name should be of letters, digits, _, - and . alone"),
        ("{.a: mlm}", "members..a: a name should be of letters, digits, _, - and . alone, with no"),
        ("{1: mlm}", "members.1: the name 1 is no text; write it in quotes"),
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


# --- wrong keys and values --------------------------------------------------------------------


def test_a_misspelt_key_is_answered_with_line_and_nearest_name(run_file: Path) -> None:
    changed(run_file, "    amount: 1000", "    amount: 1000\n  micro_bach: 4")
    text = refusal(run_file)
    assert text.startswith(f"{run_file}:9: training.micro_bach: ")
    assert "did you mean 'micro_batch'?" in text


def test_a_misspelt_key_of_a_preset_names_the_file_of_the_preset(
    run_file: Path, write: Write
) -> None:
    preset = write("model/small.yaml", SMALL + "feed_forward: 3\n")
    text = refusal(run_file)
    assert text.startswith(f"{preset}:5: model.feed_forward: ")
    assert "did you mean 'feedforward'?" in text


def test_a_changed_value_of_a_preset_names_the_file_that_changed_it(run_file: Path) -> None:
    changed(run_file, "model: small", "model:\n  base: small\n  layers: many")
    assert refusal(run_file).startswith(f"{run_file}:6: model.layers: ")


def test_a_misspelt_section_is_answered_with_the_nearest(run_file: Path) -> None:
    text = refusal(changed(run_file, "training:", "trainig:"))
    assert text.startswith(str(run_file))
    assert "train" in text


@pytest.mark.parametrize(
    ("old", "new", "path", "said"),
    [
        ("amount: 1000", "amount: lots", "training.budget.amount", "'lots'"),
        ("amount: 1000", "amount: -1", "training.budget.amount", "-1"),
        ("corpus: corpora/test", "corpus: 7", "data.corpus", "7"),
        ("corpus: corpora/test", "corpus: [a]", "data.corpus", "['a']"),
        ("amount: 1000", "amount:", "training.budget.amount", "None"),
        ("output: runs/test", "output: true", "output", "True"),
    ],
)
def test_a_wrong_value_is_quoted_with_its_place(
    run_file: Path, old: str, new: str, path: str, said: str
) -> None:
    text = refusal(changed(run_file, old, new))
    line = next(
        n for n, line in enumerate(run_file.read_text().splitlines(), 1) if new in line.strip()
    )
    assert text.startswith(f"{run_file}:{line}: {path}: ")
    assert said in text


def test_a_missing_key_is_named(run_file: Path) -> None:
    text = refusal(changed(run_file, "output: runs/test\n", ""))
    assert text.startswith(f"{run_file}: output: ")
    assert "required" in text


def test_a_key_missing_in_a_section_names_the_line_of_the_section(run_file: Path) -> None:
    text = refusal(changed(run_file, "    amount: 1000\n", "    axis: targets\n"))
    assert text.startswith(f"{run_file}:7: training.budget.amount: ")


@pytest.mark.parametrize("section", ["model: 3", "model: [small]", "model:", "model: {base: 3}"])
def test_a_section_that_is_none_is_refused(run_file: Path, section: str) -> None:
    assert "model" in refusal(changed(run_file, "model: small", section))


def test_a_key_with_a_line_break_stays_one_line(run_file: Path) -> None:
    refusal(changed(run_file, "output:", '"out\\nput": 3\noutput:'))


# --- files ------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: no such config file"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)


def test_a_missing_preset_is_answered_with_the_nearest(run_file: Path) -> None:
    text = refusal(changed(run_file, "small", "smal"))
    assert "no preset named 'smal'" in text
    assert "did you mean 'small'?" in text


def test_a_missing_preset_path_is_named(run_file: Path) -> None:
    assert "mine.yaml: no such config file" in refusal(changed(run_file, "small", "mine.yaml"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"output: [1, 2\nseed: 3\n", 2),
        (b"output: a\n\tseed: 3\n", 2),
        (b"a: 1\na: 2\n", 2),
        (b"a: 1\n  b: 2\n", 2),
        (b"output: !!python/object/apply:os.getcwd []\n", 1),
        (b"output: a\n---\noutput: b\n", 2),
        (b"a: *nowhere\n", 1),
    ],
)
def test_broken_yaml_is_told_with_its_line(write: Write, content: bytes, line: int) -> None:
    file = write("run/broken.yaml", content)
    assert refusal(file).startswith(f"{file}:{line}: not valid YAML")


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"- a\n- b\n", b"text\n", b"3\n"])
def test_a_file_without_keys_is_refused(write: Write, content: bytes) -> None:
    file = write("run/empty.yaml", content)
    assert refusal(file).startswith(str(file))


@pytest.mark.parametrize("content", [b"output: \xff\n", "output: é\n".encode("latin-1")])
def test_a_file_that_is_not_utf8_is_refused(write: Write, content: bytes) -> None:
    file = write("run/latin.yaml", content)
    assert refusal(file) == f"{file}: not UTF-8 (byte 8)"


def test_binary_files_are_refused(write: Write) -> None:
    refusal(write("run/binary.yaml", b"\x00\x01\x02"))


@pytest.mark.parametrize("value", ["${nowhere}", "${oc.env:MEGAPT_NOT_SET}", "${"])
def test_values_that_cannot_be_read_are_refused(run_file: Path, value: str) -> None:
    assert str(run_file) in refusal(changed(run_file, "runs/test", value))


# --- command line -----------------------------------------------------------------------------


def test_overrides_change_single_values(run_file: Path) -> None:
    words = ["training.budget.amount=1e6", "model.tied=false", "output=elsewhere", "seed=9"]
    config = load(run_file, *words)
    assert config.training.budget.amount == 1e6
    assert (config.model.tied, config.model.hidden) == (False, 16)
    assert (config.output, config.seed) == ("elsewhere", 9)


def test_a_section_named_on_the_command_line_replaces_the_whole_old_one(
    run_file: Path, write: Write
) -> None:
    write("model/plain.yaml", SMALL)
    changed(run_file, "model: small", "model: {base: small, dropout: 0.5}")
    assert load(run_file).model.dropout == 0.5
    assert load(run_file, "model=plain").model.dropout == 0.0


@pytest.mark.parametrize("words", [["model=big", "model.heads=4"], ["model.heads=4", "model=big"]])
def test_named_sections_are_applied_before_single_values(
    run_file: Path, write: Write, words: list[str]
) -> None:
    write("model/big.yaml", SMALL.replace("layers: 2", "layers: 24"))
    model = load(run_file, *words).model
    assert (model.layers, model.heads) == (24, 4)


def test_overrides_reach_sections_that_the_file_leaves_out(run_file: Path) -> None:
    assert load(run_file, "optimizer.lr=0.5").optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.layer=3", "did you mean 'layers'?"),
        ("model.layers=deep", "model.layers"),
        ("model.layers=", "model.layers"),
        ("model.layers=2.5", "model.layers"),
        ("seeed=3", "did you mean 'seed'?"),
        ("model.layers.inner=3", "model.layers"),
        ("output.x=1", "holds no keys"),
    ],
)
def test_a_wrong_override_is_told_as_the_command_line(run_file: Path, word: str, said: str) -> None:
    text = refusal(run_file, word)
    assert text.startswith("command line: ")
    assert said in text


@pytest.mark.parametrize("word", ["seed", "=3", "", "model.layers: 3"])
def test_a_word_that_is_no_override_is_refused(run_file: Path, word: str) -> None:
    assert refusal(run_file, word).startswith("command line: ")


@pytest.mark.parametrize("word", ["seed=[1", "seed=${", "seed={a: ", "a..b=3", ".=3", "[=3"])
def test_an_override_that_is_not_yaml_is_refused(run_file: Path, word: str) -> None:
    refusal(run_file, word)


def test_a_misspelt_preset_on_the_command_line_is_answered_with_the_nearest(
    run_file: Path,
) -> None:
    assert "did you mean 'small'?" in refusal(run_file, "model=smal")


def test_overriding_a_value_does_not_change_where_others_come_from(run_file: Path) -> None:
    changed(run_file, "amount: 1000", "amount: wrong")
    assert refusal(run_file, "model.layers=3").startswith(f"{run_file}:8: training.budget.amount")
