"""The report: complete, escaped, self-contained."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.console import Console

from megapt.comparison.figures import amount, budgets, learning_curves, measured
from megapt.comparison.report import render, table
from megapt.comparison.results import Results
from megapt.evaluation.scores import Score
from tests.comparison.reporting import (
    ATTACK,
    CHINESE,
    PROBE,
    REPETITION,
    SURPRISE,
    comparison,
    member,
    three_members,
)


@pytest.fixture
def results() -> Results:
    return three_members()


class Page(HTMLParser):
    """Checks that every tag is closed, and collects tags, references and text."""

    VOID = ("meta", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [str(v) for k, v in attrs if k == "id"]
        self.references += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_page_is_well_formed_and_fetches_nothing(results: Results) -> None:
    page = render(results)
    parsed = Page(page)
    assert parsed.tags.isdisjoint({"script", "img", "link", "iframe", "others", "adamw"})
    assert all(reference.startswith("#") for reference in parsed.references)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert "url(http" not in page
    assert "@import" not in page


def test_texts_of_models_and_users_are_escaped_and_kept(results: Results) -> None:
    page = render(results)
    assert "<script" not in page
    texts = Page(page).texts
    for text in (ATTACK, CHINESE, "评论", "Reviews & <others>", "optimizer <AdamW>"):
        assert text in texts
    assert "nsp does not generate text." in texts


def test_page_holds_every_number(results: Results) -> None:
    texts = " ".join(Page(render(results)).texts)
    for number in (
        *("5.037", "6.702", "0.752", "4.512", "6.631", "0.680", "0.701", "0.693", "1.012"),
        *("4.498", "6.617", "28.3 %", "4.7 %", "18,431"),
        *("57.1 % (55.6–58.6)", "61.2 % (59.7–62.7)", "56.6 % (55.1–58.1)", "52.1 %", "3.1 %"),
        *("51,234", "2.4 M", "2.47 M", "361 k", "1.23 TFLOP", "46.8 s", "293", "1,345,678"),
        *("f00dfeed", "18,211", "2,345,678", "2,022", "261,333", "4,000", "256"),
    ):
        assert number in texts, number


def test_page_is_deterministic(results: Results) -> None:
    assert render(results) == render(results.model_copy(deep=True))


def test_nothing_measured_is_said(results: Results) -> None:
    bare = [
        member.model_copy(update={"scores": {}, "unanswered": {}, "samples": [], "curve": []})
        for member in results.members
    ]
    page = render(results.model_copy(update={"members": bare, "measures": []}))
    assert "No text was generated." in page
    assert "No measure has an interval, so the members cannot be ranked." in page
    assert page.count("<svg") == 1


def probe_figure(results: Results) -> str:
    return measured(results, results.measures[0])


@pytest.mark.parametrize("draw", [learning_curves, probe_figure, budgets])
def test_figures_are_xml_with_text_and_page_colors(draw: Any, results: Results) -> None:
    chinese = results.members[1].model_copy(update={"name": "掩码 $x$ <b>"})
    svg = draw(results.model_copy(update={"members": [results.members[0], chinese]}))
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert "arlm" in "".join(root.itertext())
    assert "掩码 $x$ <b>" in "".join(root.itertext())
    assert "currentColor" in svg
    assert svg == draw(results.model_copy(update={"members": [results.members[0], chinese]}))


def test_curves_follow_the_axis_of_the_budget(results: Results) -> None:
    assert "Raw tokens" in learning_curves(results)
    placed = results.model_copy(update={"budget_axis": "positions"})
    assert "Positions" in learning_curves(placed)
    timed = results.model_copy(update={"budget_axis": "wall_clock"})
    assert "Training time" in learning_curves(timed)


@pytest.mark.parametrize(
    ("axis", "value", "text"),
    [
        ("raw_tokens", 0, "0"),
        ("positions", 999.4, "999"),
        ("positions", 999.6, "1 k"),
        ("raw_tokens", 15e12, "15 T"),
        ("targets", 361_000, "361 k"),
        ("model_flops", 6e25, "60 YFLOP"),
        ("wall_clock", 119, "119 s"),
        ("wall_clock", 150, "2.5 min"),
        ("wall_clock", 9000, "2.5 h"),
    ],
)
def test_amounts_have_units(axis: Any, value: float, text: str) -> None:
    assert amount(axis, value) == text


def test_what_was_not_measured_is_told_with_its_reason(results: Results) -> None:
    texts = Page(
        render(results.model_copy(update={"skipped_measures": {"halves": "needs two"}}))
    ).texts
    assert "Not measured:" in texts
    assert "halves: needs two" in texts
    assert "repetition of mlm: 'mlm' does not generate text" in texts
    assert "probe of nsp: its <states> are not finite" in texts


def test_every_measure_with_intervals_has_sentences_and_a_figure() -> None:
    both = [
        member(
            name,
            scores={
                "probe": Score(value=0.6, interval=(0.58, 0.62)),
                "surprise": Score(value=5.0, interval=(4.9, 5.1)),
                "repetition": Score(value=0.1),
            },
        )
        for name in ("a", "b")
    ]
    results = comparison(*both, measures=[PROBE, REPETITION, SURPRISE])
    assert render(results).count("<svg") == 4


def test_terminal_table_shows_names_and_numbers_as_they_are(results: Results) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    strange = results.members[0].model_copy(update={"name": "[bold]arlm"})
    console.print(table(results.model_copy(update={"members": [strange]})))
    text = console.export_text()
    for cell in ("[bold]arlm", "5.037", "6.702", "0.752", "57.1 % (55.6–58.6)", "3.1 %", "51,234"):
        assert cell in text
