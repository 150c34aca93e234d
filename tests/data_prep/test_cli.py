import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prep_support import Prep, build, command, environment, make_documents, write_jsonl
from typer.testing import CliRunner

from data_prep import cli
from data_prep.cli import repeat_input_option
from data_prep.commands.build import read_config
from data_prep.progress import ByteProgress
from data_prep.settings import BuildSettings


def test_rejected_documents_are_told(prep: Prep, tokenizer_path: Path, tmp_path: Path) -> None:
    records = [*make_documents(60), {"text": " "}, {"text": 5}]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    paths = ("--input", source, "--tokenizer", tokenizer_path, "--output", tmp_path / "out")
    done = prep("build", *paths, "--errors", "skip", "--valid-fraction", 0.2)
    assert "rejected: 1 (empty)" in done.out
    assert "rejected: 1 (text_type)" in done.out
    assert "text_type, first: " in done.out
    assert f"{source}:62: field 'text' is of type integer" in done.out


def test_several_paths_after_one_input_option() -> None:
    arguments = "build --input a b --output c --input d --errors skip"
    expected = "build --input a --input b --output c --input d --errors skip"
    assert " ".join(repeat_input_option(arguments.split())) == expected


def test_command_needs_no_torch() -> None:
    heavy = "{'torch', 'deepspeed', 'megapt'}"
    code = f"import sys, data_prep.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


COMMANDS = (
    *("tokenizer", "build", "inspect", "show", "verify", "diff", "merge", "reshard", "example"),
)


def test_help_names_the_commands() -> None:
    done = subprocess.run(
        command("--help"), env=environment(), capture_output=True, text=True, check=True
    )
    assert all(name in done.stdout for name in COMMANDS)


def test_progress_without_a_terminal_is_sparse_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 10.0, 20.0, 20.0, 21.0])
    monkeypatch.setattr("data_prep.progress.time.monotonic", lambda: next(now))
    with ByteProgress("tokenize", 100_000_000) as progress:
        for _ in range(3):
            progress.advance(20_000_000)
    assert capsys.readouterr().err == "tokenize: 40% of 100 MB, 2.0 MB/s, 30 s left\n"


def test_progress_shows_tokens_and_leaves_out_what_was_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 0.0, 20.0])
    monkeypatch.setattr("data_prep.progress.time.monotonic", lambda: next(now))
    with ByteProgress("tokenize", 100_000_000) as progress:
        progress.skip(50_000_000)
        progress.advance(30_000_000, 8_000_000)
    line = "tokenize: 80% of 100 MB, 1.5 MB/s, 0.4 Mtokens/s, 13 s left\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ({"valid_fractoin": 0.1}, (), ":1: valid_fractoin: there is no such setting; did you mean"),
        ({"cleaning": ["unicod"]}, (), ":2: cleaning.0.unicod: there is no such step"),
        (
            {"cleaning": [{"length": {"min_wrds": 1}}]},
            (),
            "cleaning.0.length.min_wrds: there is no such setting; did you mean 'min_words'",
        ),
        ({"rules": 1}, (), ":1: rules: Input should be 2"),
        ({"deduplicate": {"near": {"rows": 99}}}, (), ":2: deduplicate.near: bands * rows"),
        ({}, ("--set", "seed=x"), "seed: Input should be a valid integer"),
        ({}, ("--set", "seed"), "--set seed: write --set PATH=VALUE"),
        ({"corpora": {"a": {"paths": ["x"]}}}, ("--text-field", "b"), "--text-field: the config"),
        ({"corpora": {"a": {}}}, (), ":2: corpora.a.paths: this setting is required"),
        ("- a", (), "a config file must hold a mapping"),
        ("a: [", (), "not YAML"),
    ],
)
def test_wrong_settings_are_one_line_with_file_and_path(
    prep: Prep, tmp_path: Path, config: object, options: tuple[str, ...], message: str
) -> None:
    path = tmp_path / "build.yaml"
    text = config if isinstance(config, str) else yaml.safe_dump(config) if config else "{}"
    path.write_text(text)
    paths = () if "corpora" in text else ("--input", tmp_path / "in.jsonl")
    done = prep("build", "--config", path, *paths, "--tokenizer", "t", "--output", "o", *options)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_options_stand_over_set_and_set_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "build.yaml"
    path.write_text("seed: 1\nvalid_fraction: 0.1\nwords: jieba\ndeduplicate: {exact: true}\n")
    chosen = read_config(
        path,
        ["seed=2", "valid_fraction=0.2", "deduplicate.near.threshold=0.9"],
        {"paths": ["in.jsonl"], "text_field": None},
        {"seed": 3, "words": None},
    )
    assert (chosen.seed, chosen.valid_fraction, chosen.words) == (3, 0.2, "jieba")
    assert chosen.deduplicate.exact
    assert chosen.deduplicate.near
    assert chosen.deduplicate.near.threshold == 0.9


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(28, "No space left on device", "out"), "out: No space left on device"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("no such thing"), "no such thing"),
    ],
)
def test_a_fault_of_the_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    line: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "_handle_signals", lambda _: None)  # of the process of the tests
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"megapt-prep: error: {line}\n"


def test_missing_tokenizer_and_output_are_told(prep: Prep, corpus_file: Path) -> None:
    assert "--tokenizer is missing" in prep("build", "--input", corpus_file).err
    done = prep("build", "--input", corpus_file, "--tokenizer", "t")
    assert "--output is missing" in done.err
    done = prep("build", "--input", corpus_file, "--tokenizer", "t", "--output", "s3://a/b")
    assert "a URL needs --work FOLDER" in done.err
    assert "--input is missing" in prep("build").err


def test_dry_run_shows_what_each_step_would_do(prep: Prep, tmp_path: Path) -> None:
    records = [
        *({"text": f"The river number {n} is wide. 我们去北京。"} for n in range(80)),
        *({"text": f"write to a{n}@home.org"} for n in range(10)),
        *({"text": "x"} for _ in range(10)),
    ]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    config = tmp_path / "clean.yaml"
    config.write_text("cleaning:\n  - personal_data\n  - length: {min_characters: 9}\n")
    base = ("build", "--config", config, "--input", source, "--dry-run", 100)
    trial = json.loads(prep(*base, "--json").out)
    assert (trial["documents"], trial["kept"]) == (100, 90)
    mail, length = trial["steps"]
    assert (mail["changed"], mail["removed"]) == (10, {})
    assert (length["changed"], length["removed"]) == (0, {"length.too_short": 10})
    assert len(length["examples"]["length.too_short"]) == 3
    assert length["examples"]["length.too_short"][0]["place"] == f"{source}:91"
    text = prep(*base).out
    assert "- write to a0@home.org" in text
    assert "at least 9 needed" in text
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl", "clean.yaml"]
    assert "name no cleaning step" in prep("build", "--input", source, "--dry-run", 5).err


def test_a_text_that_the_terminal_cannot_show(
    corpus_file: Path, tokenizer_path: Path, tmp_path: Path
) -> None:
    build([corpus_file], tokenizer_path, tmp_path / "out")
    done = subprocess.run(
        command("show", tmp_path / "out", "--document", 1),
        env={**environment(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u" in done.stdout


def test_nothing_interrupts_the_exit(prep: Prep, tmp_path: Path) -> None:
    """All is told by then; the workers are ended while the interpreter is."""
    assert prep("inspect", tmp_path).code == 2
    assert signal.getsignal(signal.SIGINT) == signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_dry_run_tells_what_a_step_leaves_empty(prep: Prep, tmp_path: Path) -> None:
    records = [{"text": "long enough"}, *({"text": f"{n}"} for n in range(5))]
    source = write_jsonl(tmp_path / "in.jsonl", records)
    config = tmp_path / "clean.yaml"
    config.write_text("cleaning:\n  - lines: {min_characters: 3}\n  - length: {min_words: 2}\n")
    done = prep("build", "--config", config, "--input", source, "--dry-run", 9, "--json")
    lines, length = json.loads(done.out)["steps"]
    assert lines["removed"] == {"empty": 5}
    assert length["removed"] == {}


def test_help_shows_the_defaults_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(cli.app, ["build", "--help"])
    assert result.exit_code == 0
    for name in ("valid_fraction", "block_tokens", "errors", "words"):
        option = f"--{name.replace('_', '-')} "
        [line] = [line for line in result.output.splitlines() if option in line]
        assert f"[default: ({BuildSettings.model_fields[name].default})]" in line
