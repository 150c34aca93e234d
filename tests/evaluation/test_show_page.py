"""The page that `megapt show --html` draws."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from megapt.evaluation.show import render
from tests.evaluation.showing import (
    EVIL,
    EVIL_SHOWN,
    SOME,
    Page,
    example,
    piece,
    shown,
    target,
)


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
    """How many cells of the picture of the only example have this color."""
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
