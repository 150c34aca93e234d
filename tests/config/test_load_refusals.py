"""Wrong keys, values and files are answered in one line that names the place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.loading import SMALL, Write, changed, refusal


def test_a_misspelt_key_is_answered_with_line_and_nearest_name(run_file: Path) -> None:
    changed(run_file, "    amount: 1000", "    amount: 1000\n  micro_bach: 4")
    text = refusal(run_file)
    assert text.startswith(f"{run_file}:9: training.micro_bach: ")
    assert "did you mean 'micro_batch_size'?" in text


def test_a_misspelt_key_of_a_preset_names_the_file_of_the_preset(
    run_file: Path, write: Write
) -> None:
    preset = write("model/small.yaml", SMALL + "intermediate_sise: 3\n")
    text = refusal(run_file)
    assert text.startswith(f"{preset}:5: model.intermediate_sise: ")
    assert "did you mean 'intermediate_size'?" in text


def test_a_changed_value_of_a_preset_names_the_file_that_changed_it(run_file: Path) -> None:
    changed(run_file, "model: small", "model:\n  base: small\n  num_layers: many")
    assert refusal(run_file).startswith(f"{run_file}:6: model.num_layers: ")


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
