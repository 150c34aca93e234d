"""What `megapt show` prints, colours and draws; the command itself is in tests/cli/test_cli.py."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from data_prep.files import partial_name
from megapt.data import Example, HeadSpec, Targets, make_example
from megapt.errors import ConfigError
from megapt.evaluation.show import render, show_window, write
from megapt.evaluation.show.describe import (
    Refused,
    Shown,
    ShownExample,
    ShownPiece,
    ShownTarget,
    describe_example,
)
from megapt.evaluation.show.lines import lines, many, printable, runs
from megapt.objectives import registry
from tests.corpora import write_corpus
from tests.training.runs import run_config
from tests.windows import VOCABULARY

# ---------------------------------------------------------------- examples, written by hand


def piece(text: str, names: list[str], words: list[int], sentences: list[int]) -> ShownPiece:
    return {
        "document": 7,
        "part": "whole",
        "label": "sea",
        "tokens": len(names),
        "words": len(words),
        "sentences": len(sentences),
        "text": text,
        "pieces": names,
        "word_starts": words,
        "sentence_starts": sentences,
    }


def target(
    head: str, place: int, read: str, right: str, weight: float | None = None
) -> ShownTarget:
    return {"head": head, "position": place, "input": read, "target": right, "weight": weight}


def example(names: list[str], targets: list[ShownTarget], **changes: Any) -> ShownExample:
    """Bidirectional and in one segment, unless something else is said."""
    n = len(names)
    usual: dict[str, Any] = {
        "document": 7,
        "input": names,
        "roles": ["mask" if name == "[MASK]" else "text" for name in names],
        "targets": targets,
        "sizes": {},
        "segments": [0] * n,
        "positions": list(range(n)),
        "visible": [True] * n,
        "pairs": n * n,
    }
    return {**usual, **changes}  # type: ignore[typeddict-item]


def shown(*examples: ShownExample, pieces: list[ShownPiece] | None = None, **heads: str) -> Shown:
    names = ["▁A", "▁boat", "."]
    return {
        "window": 3,
        "raw_tokens": 3,
        "pieces": pieces or [piece("A boat.", names, [0, 1, 2], [0])],
        "objective": "some",
        "heads": [
            {
                "name": name,
                "kind": kind,
                "answers": "pieces" if HeadSpec(name, kind).over_vocabulary else "classes",
                "weight": 1.0,
            }
            for name, kind in heads.items()
        ],
        "cost": {"tokens": 3, "positions": 5.0, "targets": 7.24},
        "examples": list(examples),
    }


MASKED = example(
    ["[CLS]", "▁A", "[MASK]", "[SEP]"],
    [target("tokens", 2, "[MASK]", "▁boat"), target("class", 0, "[CLS]", "sea")],
    roles=["special", "text", "mask", "special"],
)
SOME = shown(MASKED, tokens="token", **{"class": "sequence"})
PLAIN = """\
window 3: 3 raw tokens
  document 7 (whole): 3 tokens, 3 words, 1 sentence, label sea
    A boat.
objective some: 1 example, 4 positions
  a document of W = 3 tokens: 5 positions, 7.2 targets
example 0 (document 7), 4 pieces
  input      [CLS] ▁A [MASK] [SEP]
  tokens     2:[MASK]→▁boat
  class      0:[CLS]→sea
  segments   0 x4
  positions  0-3
  attention  bidirectional; 16 of 16 pairs
"""


def text(results: list[Shown | Refused]) -> str:
    return "".join(f"{line.plain}\n" for line in lines(results))


def one_line(head: str, made: ShownExample, kind: str = "token") -> str:
    """What stands on the line of a head."""
    printed = text([shown(made, **{head: kind})])
    return next(line for line in printed.splitlines() if line.startswith(f"  {head} ")).split(
        maxsplit=1
    )[1]


# ---------------------------------------------------------------- values


HEADS = (HeadSpec("tokens", "token"),)


def described(made: Example, *heads: HeadSpec) -> ShownExample:
    tokenizer = SimpleNamespace(piece=str)
    objective = SimpleNamespace(heads=heads, vocabulary=VOCABULARY)
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
    assert described(made, *HEADS)["roles"] == ["text"] * 3


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


# ---------------------------------------------------------------- lines


def test_lines_without_a_terminal_are_plain() -> None:
    out = io.StringIO()
    write([SOME], Console(file=out))
    assert out.getvalue() == text([SOME]) == PLAIN


def test_a_refused_objective_is_listed_with_the_reason() -> None:
    printed = text([{"objective": "other", "refused": "has no labels"}, SOME])
    window, rest = PLAIN.split("objective some")
    assert printed == f"{window}objective other: refused: has no labels\nobjective some{rest}"


_ESCAPE = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.parametrize("width", [30, 60, 200])
def test_a_terminal_has_colours_and_folded_lines(width: int) -> None:
    out = io.StringIO()
    write([SOME], Console(file=out, force_terminal=True, width=width, color_system="standard"))
    assert "\x1b[1;33m[MASK]\x1b[0m" in out.getvalue()
    assert "\x1b[2m[CLS]\x1b[0m" in out.getvalue()
    bare = _ESCAPE.sub("", out.getvalue())
    assert bare.split() == PLAIN.split()
    assert (bare == PLAIN) == (width == 200)
    # Twenty columns are left for what stands after the names, in the narrowest terminal too.
    assert max(map(len, bare.splitlines())) <= max(width, 13 + 20)


def test_what_is_continued_stands_under_what_it_continues() -> None:
    made = example(["渔船"] * 30, [], roles=["text"] * 30)
    out = io.StringIO()
    write([shown(made)], Console(file=out, force_terminal=True, width=60))
    bare = _ESCAPE.sub("", out.getvalue()).splitlines()
    start = next(i for i, line in enumerate(bare) if line.startswith("  input "))
    assert [line[:13] for line in bare[start : start + 4]] == ["  input      ", *[" " * 13] * 3]
    assert all(len(line) + line.count("渔船") * 2 <= 60 for line in bare[start : start + 4])


def test_every_line_has_a_line_of_its_own_on_a_terminal() -> None:
    """Also where there is nothing to say."""
    result = shown(pieces=[piece("", [""], [0], [0])])
    out = io.StringIO()
    write([result], Console(file=out, force_terminal=True, width=200))
    assert [line.rstrip() for line in _ESCAPE.sub("", out.getvalue()).splitlines()] == [
        line.plain.rstrip() for line in lines([result])
    ]


@pytest.mark.parametrize("width", [30, 200])
def test_no_color_leaves_no_escape(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    write([SOME], Console(file=out, force_terminal=True, width=width, color_system="standard"))
    assert "\x1b" not in out.getvalue()
    assert out.getvalue().split() == PLAIN.split()
    assert (out.getvalue() == PLAIN) == (width == 200)


EVIL = "a\x1b[31m\x07\x00\x9b\u202eb\u2066\n"
EVIL_SHOWN = r"a\x1b[31m\x07\x00\x9b\u202eb\u2066\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_control_characters_of_a_text_are_written_out(terminal: bool) -> None:
    made = example([EVIL, "b"], [target("tokens", 0, EVIL, EVIL)])
    result = shown(made, pieces=[piece(EVIL, [EVIL], [0], [0])], tokens="token")
    result["pieces"][0]["label"] = EVIL
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, color_system="standard")
    write([result, {"objective": "x", "refused": EVIL}], console)
    printed = _ESCAPE.sub("", out.getvalue())
    assert printed.count(EVIL_SHOWN) == 6
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", printed)
    assert len(printed.splitlines()) == len(list(lines([result]))) + 1


@given(st.text())
def test_what_is_written_out_can_be_read_back(raw: str) -> None:
    """All but a text that holds such escapes itself."""
    shown_text = printable(raw)
    assert shown_text.isprintable() or printable(shown_text) == shown_text
    if "\\" not in raw:
        escape = re.compile(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|[nrt])")
        assert escape.sub(lambda found: ast.literal_eval(f"'{found[0]}'"), shown_text) == raw


def test_source_target_and_second_segment_look_different() -> None:
    names = ["a", "b"]
    for changes, styles in [
        ({"visible": [True, False], "pairs": 3}, ["cyan", ""]),
        ({"visible": [False, False], "pairs": 3, "segments": [0, 1]}, ["", "blue"]),
        ({"segments": [0, 1]}, ["", "blue"]),
        ({}, ["", ""]),
    ]:
        made = example(names, [], **changes)
        (line,) = [line for line in lines([shown(made)]) if line.plain.startswith("  input")]
        assert [style for part, style in line.parts if part in names] == styles


def test_long_runs_of_targets_leave_out_what_is_read() -> None:
    names = [str(i) for i in range(9)]
    many_targets = [target("tokens", i, name, f"<{name}>") for i, name in enumerate(names)]
    seven = example(names, many_targets[:7])
    assert one_line("tokens", seven) == " ".join(f"{i}:{i}→<{i}>" for i in range(7))
    apart = example(names, many_targets[:3] + many_targets[5:])
    assert "→<3>" not in one_line("tokens", apart)
    assert one_line("tokens", apart).startswith("0:0→<0> 1:1→<1> 2:2→<2> 5:5→<5>")
    assert one_line("tokens", example(names, many_targets)) == "0-8→" + " ".join(
        f"<{name}>" for name in names
    )


def test_equal_classes_in_a_row_are_counted_and_equal_tokens_are_not() -> None:
    names = ["a"] * 9
    answers = ["original"] * 5 + ["?"] + ["original"] * 3
    made = example(names, [target("found", i, "a", answer) for i, answer in enumerate(answers)])
    assert one_line("found", made, "detection") == "0-8→original x5 ? original x3"
    assert one_line("found", made, "token") == f"0-8→{' '.join(answers)}"


@pytest.mark.parametrize(
    ("weights", "sizes", "end"),
    [
        ([3.2, 3.2], {}, " (w 3.2)"),
        ([2.0, 1 / 3], {}, " (w 2 0.333)"),
        ([1.0, 1.0, 2.5], {"tokens": 16.0}, " (w 1 x2 2.5, size 16)"),
        ([None, None], {"tokens": 16.0}, " (size 16)"),
        ([None, None], {}, "y"),
    ],
)
def test_terms_of_the_loss_stand_after_the_targets(
    weights: list[float | None], sizes: dict[str, float], end: str
) -> None:
    targets = [target("tokens", i, "x", "y", weight) for i, weight in enumerate(weights)]
    assert one_line("tokens", example(["x"] * 4, targets, sizes=sizes)).endswith(end)


@given(st.lists(st.integers(0, 4), max_size=20))
def test_runs_can_be_read_back(values: list[int]) -> None:
    back: list[int] = []
    for part in runs(values).split(" ") if values else []:
        first, dash, last = part.partition("-")
        if dash:
            back += range(int(first), int(last) + 1)
        elif "x" not in part:
            back.append(int(part))
        else:
            back += [back[-1]] * (int(part[1:]) - 1)
    assert back == values


def test_counts_are_rounded_to_a_decimal_place() -> None:
    assert [many(n, "target") for n in (0, 1, 2, 7.24, 0.98, 1030.0)] == [
        "0 targets",
        "1 target",
        "2 targets",
        "7.2 targets",
        "1 target",
        "1030 targets",
    ]


# ---------------------------------------------------------------- the page


class Page(HTMLParser):
    """Reads a page: every element is closed where it should be, and texts and links are kept."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def test_a_page_is_one_file_that_fetches_and_runs_nothing() -> None:
    html = render([SOME, {"objective": "other", "refused": "has no labels"}], "run.yaml")
    page = Page(html)
    assert {"script", "link", "img", "iframe"}.isdisjoint(tag for tag, _ in page.tags)
    assert "http:" not in html
    assert "url(" not in html
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == ["#some", "#other"]
    assert {attributes.get("id") for tag, attributes in page.tags if tag == "h2"} == {
        "some",
        "other",
    }
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert "prefers-color-scheme: dark" in html
    for part in ("window 3 of run.yaml", "[MASK]", "A boat.", "has no labels", "7.2 targets"):
        assert part in page.text


def test_whatever_stands_in_a_text_is_shown_and_not_run() -> None:
    evil = '<script>alert("1")</script>'
    made = example([evil, "&amp;", "<b>"], [target("<i>", 1, "&amp;", evil)])
    result = shown(made, pieces=[piece(evil, [evil], [0], [0])], **{"<i>": "token"})
    result["pieces"][0]["label"] = evil
    page = Page(render([result, {"objective": "x", "refused": evil}], evil))
    assert {"script", "b", "i"}.isdisjoint(tag for tag, _ in page.tags)
    assert page.text.count(evil) == 8
    assert "&amp;" in page.text


def test_control_characters_do_not_reach_a_page() -> None:
    made = example([EVIL, "b"], [target("tokens", 0, EVIL, EVIL)])
    result = shown(made, pieces=[piece(EVIL, [EVIL], [0], [0])], tokens="token")
    page = render([result], "r")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    # The text as it is, and its token in the text, in the input and as a target.
    assert Page(page).text.count(EVIL_SHOWN.removesuffix(r"\n")) == 4


def test_each_text_of_a_page_has_a_direction_of_its_own() -> None:
    names = ["▁שלום", "▁boat"]
    page = render([shown(pieces=[piece("שלום boat", names, [0, 1], [0])])], "r")
    Page(page)
    isolated = re.findall("<bdi>(.*?)</bdi>", page)
    assert isolated == [
        "sea",
        *[f'<span class="space">▁</span>{n[1:]}' for n in names],
        "שלום boat",
    ]


def test_words_and_sentences_of_the_text_can_be_seen() -> None:
    names = ["▁Un", "der", "▁way", ".", "▁海", "浪"]
    page = Page(
        render([shown(pieces=[piece("Under way. 海浪", names, [0, 2, 3, 4], [0, 4])])], "r")
    )
    kinds = [attributes.get("class") for tag, attributes in page.tags if tag == "span"]
    text_end = kinds.index("in special")  # The legend begins.
    assert kinds[:text_end].count("word") == 4
    assert kinds[:text_end].count("sentence") == 2
    numbers = [a["data-number"] for tag, a in page.tags if "data-number" in a]
    assert numbers == ["1", "2"]
    assert ("p", {"class": "passage", "lang": "zh"}) in page.tags
    assert "".join(names) in page.text


def test_a_box_shows_token_position_segment_and_target() -> None:
    made = example(
        ["[CLS]", "a\n", "b", ""],
        [target("tokens", 2, "b", "c", 1.5), target("tokens", 3, "", "d", 2.5)],
        roles=["special", "text", "replaced", "text"],
        segments=[0, 0, 1, 1],
        positions=[0, 1, 0, 1],
        visible=[True, True, False, False],
        pairs=11,
    )
    page = render([shown(made, tokens="token")], "r")
    Page(page)
    boxes = re.findall(r"<li><span class=\"at\">.*?</li>", page)
    assert boxes == [
        '<li><span class="at">0</span><span class="in special source">[CLS]</span></li>',
        '<li><span class="at">1</span><span class="in text source">a↵</span></li>',
        '<li><span class="at">0</span><span class="in replaced seg1">b</span>'
        '<span class="out">c<small>w 1.5</small></span></li>',
        '<li><span class="at">1</span><span class="in text seg1">&nbsp;</span>'
        '<span class="out">d<small>w 2.5</small></span></li>',
    ]


def area(page: str, kind: str) -> int:
    """How many cells of the picture of the only example have this colour."""
    picture = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)[-1]
    (path,) = re.findall(rf'<path class="{kind}" d="(.*?)"/>', picture)
    return sum(int(width) for width in re.findall(r"M\d+ \d+h(\d+)v1h-\d+z", path))


@given(st.lists(st.booleans(), min_size=1, max_size=64))
def test_the_picture_of_attention_has_a_cell_a_pair(visible: list[bool]) -> None:
    n = len(visible)
    pairs = sum(j <= i or visible[j] for i in range(n) for j in range(n))
    made = example(["a"] * n, [], visible=visible, pairs=pairs)
    page = render([shown(made)], "r")
    assert area(page, "allowed") == n * (n + 1) // 2
    assert area(page, "allowed") + area(page, "ahead") == pairs
    assert "drawn at" not in page


def test_the_picture_of_a_long_example_is_a_sketch() -> None:
    n, seen = 1024, 512
    made = example(["a"] * n, [], visible=[i < seen for i in range(n)], pairs=0)
    page = render([shown(made)], "r")
    assert area(page, "allowed") == 64 * 65 // 2
    assert area(page, "ahead") == 32 * 31 // 2
    assert "drawn at 64 of 1024 positions" in page


# ---------------------------------------------------------------- the command's work


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
    assert [result["objective"] for result in results] == sorted(registry())
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
    assert re.findall(r"^objective (\w+): ", printed, re.MULTILINE) == sorted(registry())
    assert len(re.findall("^window ", printed, re.MULTILINE)) == 1


def test_all_lists_what_the_corpus_refuses(show: Show, tmp_path: Path) -> None:
    (tmp_path / "unlabelled").mkdir()
    corpus = write_corpus(tmp_path / "unlabelled", labels=False)
    results = {r["objective"]: r for r in json.loads(show(corpus=corpus, every=True, as_json=True))}
    assert sorted(results) == sorted(registry())
    assert [name for name, result in results.items() if "refused" in result] == ["msc"]
    assert "label" in results["msc"]["refused"]
    assert f"objective msc: refused: {results['msc']['refused']}\n" in show(
        corpus=corpus, every=True
    )


def test_all_drops_no_setting_in_silence(show: Show) -> None:
    for word in ("objective=mlm", "objective.mask_rate=0.3"):
        with pytest.raises(ConfigError, match=rf"'{re.escape(word)}' has no place beside --all"):
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
