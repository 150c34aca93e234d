"""What `megapt show` tells of a window; the command itself is in tests/cli/test_cli.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from data_prep.files import partial_name
from megapt.data import Attention, Example, HeadSpec, Targets, make_example
from megapt.errors import ConfigError
from megapt.evaluation.show import show_window
from megapt.evaluation.show.describe import (
    ShownExample,
    describe_example,
)
from megapt.objectives import OBJECTIVES, Objective
from tests.corpora import write_corpus
from tests.evaluation.showing import Page
from tests.training.runs import run_config
from tests.windows import VOCABULARY

HEADS = (HeadSpec("tokens", "token"),)


def described(
    made: Example, *heads: HeadSpec, attention: Attention = "bidirectional"
) -> ShownExample:
    tokenizer = SimpleNamespace(piece=str)
    objective = SimpleNamespace(heads=heads, vocabulary=VOCABULARY, attention=attention)
    objective.role = partial(Objective.role, objective)
    return describe_example(made, objective, tokenizer)  # type: ignore[arg-type]


def asked(places: list[int], labels: list[int], **more: Any) -> Targets:
    return Targets(np.array(places), np.array(labels), **more)


def test_roles_tell_what_stands_at_each_position() -> None:
    cls, mask, sep, sentinel = 4, 6, 5, 13
    tokens = [cls, 50, mask, 51, 52, sentinel, sep]
    made = make_example(tokens, "bidirectional", {"tokens": asked([2, 3, 4], [60, 61, 52])})
    expected = ["special", "text", "mask", "replaced", "kept", "sentinel", "special"]
    assert described(made, *HEADS)["roles"] == expected


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_nothing_is_replaced_where_the_next_token_is_predicted(prefix: int) -> None:
    """Not even where a prefix is all that there is, so that every position is seen by all."""
    places = np.arange(max(prefix - 1, 0), 3)
    targets = {"tokens": Targets(places, places + 51)}
    made = make_example([50, 51, 52], "prefix", targets, prefix=prefix)
    assert described(made, *HEADS, attention="prefix")["roles"] == ["text"] * 3


def test_weights_and_sizes_are_shown_where_there_are_any() -> None:
    targets = {"tokens": asked([1, 2], [60, 61], weights=np.array([1.5, 3.0]), size=9.0)}
    values = described(make_example([4, 6, 6, 5], "bidirectional", targets), *HEADS)
    assert [t["weight"] for t in values["targets"]] == [1.5, 3.0]
    assert values["sizes"] == {"tokens": 9.0}
    plain = described(
        make_example([4, 6, 5], "bidirectional", {"tokens": asked([1], [60])}), *HEADS
    )
    assert (plain["targets"][0]["weight"], plain["sizes"]) == (None, {})


def test_what_a_generator_decides_is_not_shown_as_known() -> None:
    heads = (
        HeadSpec("written", "generator"),
        HeadSpec("found", "detection", 2, labels=("original", "replaced")),
    )
    targets = {"written": asked([2], [60]), "found": asked([1, 2, 3], [0, 0, 0])}
    values = described(make_example([4, 50, 6, 51, 5], "bidirectional", targets), *heads)
    answers = [(t["head"], t["position"], t["target"]) for t in values["targets"]]
    assert answers == [
        ("written", 2, "60"),
        ("found", 1, "original"),
        ("found", 2, "?"),
        ("found", 3, "original"),
    ]


@pytest.mark.parametrize(("labels", "answer"), [(("no", "yes"), "yes"), ((), "1")])
def test_classes_are_shown_by_name_if_they_have_one(labels: tuple[str, ...], answer: str) -> None:
    made = make_example([4, 50, 5], "bidirectional", {"class": asked([0], [1])})
    (value,) = described(made, HeadSpec("class", "sequence", 2, labels=labels))["targets"]
    assert value["target"] == answer


Show = Callable[..., str]


@pytest.fixture
def show(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Show a window of the corpus, or of another one, and return what was printed."""

    def run(*words: str, corpus: Path = corpus_folder, index: int = 2, **options: Any) -> str:
        config = run_config(corpus, tmp_path / "run", data={"window": 64}).model_dump()
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(config), encoding="utf-8")
        show_window(str(file), words, index, **options)
        return capsys.readouterr().out

    return run


def test_all_shows_every_objective_of_one_window(show: Show, tmp_path: Path) -> None:
    results = json.loads(show(every=True, as_json=True, html=tmp_path / "all.html"))
    assert [result["objective"] for result in results] == sorted(OBJECTIVES)
    assert not [result for result in results if "refused" in result]
    for key in ("window", "raw_tokens", "pieces"):
        assert all(result[key] == results[0][key] for result in results)
    alone = json.loads(show("objective=mlm", as_json=True))
    assert alone in results
    html = (tmp_path / "all.html").read_text(encoding="utf-8")
    page = Page(html)
    for result in results:
        assert f'<h2 id="{result["objective"]}">' in html
        for made in result["examples"]:
            assert len(made["input"]) == len(made["roles"]) == len(made["visible"])
            assert all(name.replace("\n", "↵") in page.text for name in made["input"])
    printed = show(every=True)
    assert re.findall(r"^objective (\w+): ", printed, re.MULTILINE) == sorted(OBJECTIVES)
    assert len(re.findall("^window ", printed, re.MULTILINE)) == 1


def test_all_lists_what_the_corpus_refuses(show: Show, tmp_path: Path) -> None:
    (tmp_path / "unlabeled").mkdir()
    corpus = write_corpus(tmp_path / "unlabeled", labels=False)
    results = {r["objective"]: r for r in json.loads(show(corpus=corpus, every=True, as_json=True))}
    assert sorted(results) == sorted(OBJECTIVES)
    assert [name for name, result in results.items() if "refused" in result] == ["msc"]
    assert "label" in results["msc"]["refused"]
    assert f"objective msc: refused: {results['msc']['refused']}\n" in show(
        corpus=corpus, every=True
    )


def test_all_drops_no_setting_in_silence(show: Show) -> None:
    for word in ("objective=mlm", "objective.mask_rate=0.3"):
        with pytest.raises(ConfigError, match=rf"'{re.escape(word)}' cannot be combined"):
            show(word, every=True)


def test_a_page_takes_the_place_of_the_lines(show: Show, tmp_path: Path) -> None:
    file = tmp_path / "window.html"
    assert show("objective=bert", html=file) == f"page: {file}\n"
    assert file.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_without_a_place_is_refused_before_anything_is_read(
    show: Show, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    before = None
    for name, said in [("folder", "is a folder"), ("nowhere/a.html", "there is no folder")]:
        with pytest.raises(ConfigError, match=said):
            show(html=tmp_path / name, corpus=tmp_path / "nothing")
        after = sorted(tmp_path.rglob("*"))
        assert before in (None, after)
        before = after
    assert [path.name for path in before or ()] == ["folder", "run.yaml"]


def test_a_page_that_cannot_be_written_is_named_as_it_was_asked_for(
    show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "window.html"
    partial_name(file).mkdir()  # what it is written to at first
    with pytest.raises(ConfigError) as error:
        show(html=file)
    assert str(error.value) == f"command line: --html {file}: Is a directory"


@pytest.mark.parametrize("options", ["", "--json"])
def test_a_terminal_without_unicode_gets_escapes(show: Show, tmp_path: Path, options: str) -> None:
    words = ["show", str(tmp_path / "run.yaml"), "objective=mlm", "--window", "2", *options.split()]
    expected = show("objective=mlm", as_json=bool(options))  # which writes the file, too
    assert not expected.isascii()
    run = subprocess.run(
        [sys.executable, "-c", "from megapt.cli import main; main()", *words],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.isascii()
    if options:
        assert json.loads(run.stdout) == json.loads(expected)
    else:
        assert run.stdout == expected.encode("ascii", "backslashreplace").decode()
