"""docs/data.md: its commands and code run as they stand, and its tables are complete."""

import os
import random
import re
import shlex
import subprocess
import sys
import tarfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from prep_support import chinese_text, english_text, environment, read_split, write_jsonl

from data_prep.cli import app
from data_prep.corpora.reading import Corpus
from data_prep.manifest import Manifest
from data_prep.pipeline.duplicates import REASONS
from data_prep.pipeline.units import POISONOUS
from data_prep.settings import BuildConfig

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
COMMAND: Any = typer.main.get_command(app)
# Texts as long as those of the examples, so that every number and id of the page exists.
DOCUMENTS = {"texts": 1300, "texts-zh": 700}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def section(title: str) -> str:
    match = re.search(
        rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,3}} |\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
    assert match, title
    return match[2]


def rows(text: str) -> list[list[str]]:
    """The cells of all rows of tables, but headings."""
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def write_example(folder: Path) -> None:
    """What `megapt-prep example` extracts, made up."""
    make = chinese_text if folder.name.endswith("zh") else english_text
    rng = random.Random(folder.name)
    records = [
        {
            "id": f"{folder.name}/{number}" if number else "1829-Jackson-1/1",
            "text": make(rng, rng.randint(2, 8)),
            "label": rng.choice("ab"),
            "group": f"g{number // 3}",
        }
        for number in range(DOCUMENTS[folder.name])
    ]
    write_jsonl(folder / "corpus.jsonl", records)


def run(line: str, folder: Path) -> None:
    """Run a command line of the page, on small texts and without a cluster or an object store."""
    line = line.removeprefix("mpirun -n 64 ").replace(" --executor mpi", "")
    line = line.replace("s3://bucket", f"file://{folder}/store").replace("/scratch", "scratch")
    program, *words = shlex.split(line, comments=True)
    assert program == "megapt-prep"
    if words[0] == "example":
        write_example(Path(words[-1]))
        return
    if "--vocab-size" in words:
        words[words.index("--vocab-size") + 1] = "460"
    # Not by `main`, which would set signal handlers.
    assert not COMMAND.main(words, prog_name=program, standalone_mode=False), line


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reader who has typed every command of the page, from the first on."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "configs").symlink_to(ROOT / "configs")
    (folder / "corpora.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(StringIO()):
            for line in "".join(blocks("sh")).splitlines():
                run(line, folder)
    finally:
        os.chdir(before)
    return folder


def test_the_first_commands_are_five_and_five_in_both_languages() -> None:
    english, chinese = (block.splitlines() for block in blocks("sh")[:2])
    assert len(english) == len(chinese) == 5
    for lines in (english, chinese):
        subcommands = [shlex.split(line)[1] for line in lines]
        assert subcommands == ["example", "tokenizer", "build", "verify", "show"]


def test_every_command_runs(reader: Path) -> None:
    both = Corpus(reader / "both").manifest
    assert both.corpora == ["english", "chinese"]
    assert both.source_documents == sum(DOCUMENTS.values())
    assert (reader / "corpus.svg").exists()
    assert (reader / "store/corpora/both/manifest.json").exists()
    near: dict[str, Any] = {
        name: Manifest.load(reader / name).settings for name in ("corpus-both", "corpus-both-70")
    }
    thresholds = [settings["deduplicate"]["near"]["threshold"] for settings in near.values()]
    assert thresholds == [0.8, 0.7]


def test_the_config_of_the_page_is_complete() -> None:
    values = yaml.safe_load(blocks("yaml")[0])
    assert set(values) == set(BuildConfig.model_fields) - {"rules", "format"}
    BuildConfig.model_validate(values)


def python(code: str, folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_plain_webdataset_reads_a_shard_in_five_lines(reader: Path) -> None:
    code = blocks("python")[0]
    assert len([line for line in code.splitlines() if line]) == 5
    counts = [int(line.split()[1]) for line in python(code, reader).splitlines()]
    assert counts == [len(block) for block in read_split(reader / "corpus", "train")]


def test_random_access_reads_the_last_block(reader: Path) -> None:
    last = read_split(reader / "corpus", "train")[-1]
    printed = python(blocks("python")[1], reader)
    assert printed.split()[:2] == [str(last.documents[0]), last.ids[0]]
    tokens = re.findall(r"\d+", printed.partition("[")[2])
    assert tokens == [str(token) for token in last.tokens[: last.lens[0]]]


@pytest.mark.parametrize("name", ["corpus", "corpus-zh", "corpus-both"])
@pytest.mark.parametrize("split", ["train", "valid"])
def test_numpy_reads_all_documents_in_ten_lines(reader: Path, name: str, split: str) -> None:
    code = blocks("python")[2]
    body = code.partition("def documents")[2].splitlines()[1:]
    assert len(body) <= 10 + 1  # `else:` holds nothing
    scope: dict[str, Any] = {}
    exec(code, scope)
    found = [document["tokens"] for document in scope["documents"](reader / name, split)]
    expected = [
        tokens
        for block in read_split(reader / name, split)
        for tokens in np.split(block.tokens, np.cumsum(block.lens)[:-1])
    ]
    assert len(found) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_every_member_and_every_field_of_the_manifest_is_on_the_page(reader: Path) -> None:
    text = section("The shard format, `megapt-shards/3`")
    with tarfile.open(reader / "corpus-both" / "train-000000.tar") as tar:
        block = [name for name in tar.getnames() if name.startswith("00000000.")]
    members = [row[0].strip("`") for row in rows(text) if "KEY." in row[0]]
    assert members == [name.replace("00000000", "KEY") for name in block]
    fields = [row[0].strip("`") for row in rows(text.partition("field of `manifest.json`")[2])]
    assert fields == list(Manifest.model_fields)
    files = {name for row in rows(text.partition("| member")[0]) for name in names(row[0])}
    assert {path.name for path in (reader / "corpus-both").iterdir()} <= files


def test_every_reason_of_a_fault_is_on_the_page() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "data_prep").rglob("*.py"))
    raised = re.findall(r'(?:DocumentError\(|_read_value\(fields, name,)\s*"(\w+)"', sources)
    reasons = {POISONOUS, REASONS["ids"], *raised}
    table = section("Wrong input")
    assert {name for row in rows(table) for name in names(row[0])} == reasons
    assert all(name in table for name in REASONS.values())
