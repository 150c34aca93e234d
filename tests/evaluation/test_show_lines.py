"""The lines that `megapt show` prints and colors."""

from __future__ import annotations

import ast
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from megapt.evaluation.show import write
from megapt.evaluation.show.lines import lines, plural, printable, runs
from tests.evaluation.showing import (
    EVIL,
    EVIL_SHOWN,
    PLAIN,
    SOME,
    example,
    one_line,
    piece,
    shown,
    target,
    text,
)


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
def test_a_terminal_has_colors_and_folded_lines(width: int) -> None:
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
    assert [plural(n, "target") for n in (0, 1, 2, 7.24, 0.98, 1030.0)] == [
        "0 targets",
        "1 target",
        "2 targets",
        "7.2 targets",
        "1 target",
        "1030 targets",
    ]
