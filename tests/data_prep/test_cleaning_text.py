"""Steps that change characters and lines, and those that measure a whole text."""

import unicodedata
from typing import Any

import pytest
from prep_cleaning import CHINESE, ENGLISH, cleaner, kept, removed

from data_prep.cleaning.words import SCRIPTS, Words, count_letters, count_words


def changed(step: str, text: str, **settings: Any) -> tuple[str, dict[str, int]]:
    outcome = kept(cleaner(step, **settings).clean(text))
    return outcome.text, dict(outcome.changes)


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        ("NFC", "cafe\u0301", "café"),
        ("NFC", "ﬁ ，１０³", "ﬁ ，１０³"),
        ("NFKC", "ﬁ ，１０³", "fi ,103"),
        ("NFC", "\ufa10", "塚"),
        ("NFC", "plain 中文", "plain 中文"),
    ],
)
def test_unicode(form: str, text: str, wanted: str) -> None:
    counts = {"unicode": 1} if text != wanted else {}
    assert changed("unicode", text, form=form) == (wanted, counts)


@pytest.mark.parametrize("marks", ["\u0301\u0316" * 100_000, "\u0344" * 1000, "\u3099" * 1000])
def test_long_runs_of_marks_are_broken_up(marks: str) -> None:
    text, counts = changed("unicode", "a" + marks)
    assert counts == {"unicode": 1}
    assert unicodedata.is_normalized("NFC", text)
    assert changed("unicode", text) == (text, {})


@pytest.mark.parametrize(
    ("text", "wanted", "count"),
    [
        ("sÃ³ ok", "só ok", 1),
        ("donâ€™t\nplain\nvoilÃ\xa0", "don’t\nplain\nvoilà", 2),
        ("ä¸\xadæ–‡", "中文", 1),
        ("“quoted” &amp; ﬁne", "“quoted” &amp; ﬁne", 0),
        (CHINESE, CHINESE, 0),
        (ENGLISH, ENGLISH, 0),
    ],
)
def test_mojibake(text: str, wanted: str, count: int) -> None:
    assert changed("mojibake", text) == (wanted, {"mojibake": count} if count else {})


@pytest.mark.parametrize(
    ("text", "wanted", "kind", "settings"),
    [
        ("a\r\nb", "a\nb", "line_breaks", {}),
        ("a\rb", "a\nb", "line_breaks", {}),
        ("a\u2028b", "a\nb", "line_breaks", {}),
        ("a\fb", "a\nb", "line_breaks", {}),
        ("a\0b", "ab", "control", {}),
        ("a\x9fb", "ab", "control", {}),
        ("a\ud800b", "ab", "control", {}),
        ("a\uffffb", "ab", "control", {}),
        ("\x1b[1;31mred", "red", "escapes", {}),
        ("\ufeff中", "中", "zero_width", {}),
        ("co\xadop", "coop", "zero_width", {}),
        ("a\u202eb", "ab", "bidi", {}),
        ("a\u200db", "ab", "joiners", {"joiners": True}),
        ("a\ue000b", "ab", "private_use", {"private_use": True}),
    ],
)
def test_control_characters(text: str, wanted: str, kind: str, settings: dict[str, bool]) -> None:
    assert changed("control_characters", text, **settings) == (
        wanted,
        {f"control_characters.{kind}": 1},
    )


@pytest.mark.parametrize(
    "text", ["a\tb\nc", "a\u200db", "می\u200cخواهم", "a\ue000b", "é中\U0001f600"]
)
def test_control_characters_leaves_the_rest(text: str) -> None:
    assert changed("control_characters", text) == (text, {})
    off = {"zero_width": False, "bidi": False}
    assert changed("control_characters", "a\u200b\u202eb", **off) == ("a\u200b\u202eb", {})


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, "a b\n\nc d\ne"),
        ({"max_blank_lines": 0}, "a b\nc d\ne"),
        ({"max_blank_lines": None}, "a b\n\n\n\nc d\ne"),
        ({"leading": False}, "  a b\n\n　c d\ne"),
        ({"trailing": False}, "a b \n\nc d\ne"),
        ({"collapse": False}, "a\xa0\t b\n\nc　d\ne"),
        ({"ideographic_space": False}, "a b\n\n　c　d\ne"),
    ],
)
def test_whitespace(settings: dict[str, Any], wanted: str) -> None:
    assert changed("whitespace", "\n  a\xa0\t b \n\n\n\n　c　d\ne\n\n", **settings)[0] == wanted


def test_whitespace_counts() -> None:
    assert changed("whitespace", "a  b\tc \n\n\nd") == (
        "a b c\n\nd",
        {"whitespace.runs": 2, "whitespace.line_ends": 1, "whitespace.blank_lines": 1},
    )


LINES = (
    "One two three.\n\nShort\nUse JavaScript now.\nif {x}.\nOne two three.\n我们去北京。\nWell..."
)


@pytest.mark.parametrize(
    ("settings", "dropped", "reason"),
    [
        ({}, ["Use JavaScript now."], "javascript"),
        ({"curly_bracket": True}, ["if {x}."], "curly_bracket"),
        ({"min_words": 2}, ["Short", "我们去北京。", "Well..."], "too_few_words"),
        ({"min_words": 2, "words": "cjk"}, ["Short", "Well..."], "too_few_words"),
        ({"min_characters": 6}, ["Short"], "too_short"),
        ({"min_characters": 7}, ["Short", "我们去北京。"], "too_short"),
        ({"terminal_marks": [".", "。"]}, ["Short", "Well..."], "terminal_mark"),
    ],
)
def test_lines(settings: dict[str, Any], dropped: list[str], reason: str) -> None:
    text, counts = changed(
        "lines", LINES, **({"javascript": "min" not in str(settings)} | settings)
    )
    missing = [line for line in LINES.split("\n") if line not in text.split("\n")]
    assert [line for line in missing if line in dropped] == dropped
    assert counts[f"lines.{reason}"] == len(dropped)
    assert "\n\n" in text, "empty lines stay"


def test_lines_drops_copies_after_the_last_allowed() -> None:
    text = "甲\n乙\n甲\n\n甲 "
    assert changed("lines", text, max_copies=1) == ("甲\n乙\n", {"lines.copies": 2})
    assert changed("lines", text, max_copies=2) == ("甲\n乙\n甲\n", {"lines.copies": 1})
    assert changed("lines", text, max_copies=3) == (text, {})


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("He said: no!", {"characters": 12, "words": 3, "bytes": 12}),
        ("我们 ok", {"characters": 5, "words": 2, "bytes": 9}),
    ],
)
def test_length(text: str, sizes: dict[str, int]) -> None:
    for unit, size in sizes.items():
        kept(cleaner("length", **{f"min_{unit}": size, f"max_{unit}": size}).clean(text))
        short, long = f"min_{unit}", f"max_{unit}"
        assert removed(cleaner("length", **{short: size + 1}).clean(text)) == "length.too_short"
        assert removed(cleaner("length", **{long: size - 1}).clean(text)) == "length.too_long"
    kept(cleaner("length", min_words=3, words="cjk").clean("我们 ok"))


SAMPLES = {
    "Latin": "Größe ẞ ﬁ Ａ",
    "Han": "汉字々〇㐀\U00020000",
    "Kana": "ひらカナｶ",
    "Hangul": "한글ㄱ",
    "Cyrillic": "Привет",
    "Arabic": "مرحبا",
    "Devanagari": "नमस",
    "Greek": "Ελλάδαἀ",
    "Hebrew": "שלום",
    "Thai": "สวสด",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_letters_by_script(script: str) -> None:
    text = SAMPLES[script] + " 12.,。！"
    letters = sum(map(str.isalpha, text))
    assert letters == count_letters(text)[script] == sum(count_letters(text).values())


def test_letters_of_scripts_agree_with_their_unicode_names() -> None:
    named = {"Kana": ("HIRAGANA", "KATAKANA"), "Han": ("CJK UNIFIED", "CJK COMPATIBILITY IDEO")}
    letters = list(filter(str.isalpha, map(chr, range(0x10000))))
    for script in SCRIPTS:
        starts = named.get(script, (script.upper(), "FULLWIDTH " + script.upper()))
        own = [letter for letter in letters if unicodedata.name(letter, "").startswith(starts)]
        missed = [letter for letter in own if not count_letters(letter)[script]]
        assert not missed, unicodedata.name(missed[0])


def test_script_share() -> None:
    half = cleaner("script", allowed=["Han"], min_share=0.5)
    kept(half.clean("中文ab 123 ..."))
    assert removed(half.clean("中文abc")) == "script.share"
    assert removed(half.clean("123 ...")) == "script.share"
    kept(cleaner("script", allowed=["Han", "Latin"], min_share=1).clean("中文abc 1"))
    assert removed(cleaner("script", allowed=["Latin"]).clean("это по-русски ok")) == "script.share"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n", []),
        ("one  two\n3.", ["one", "two", "3."]),
        ("我们用Python写，真的！", ["我", "们", "用", "Python", "写", "真", "的"]),
        ("カナ-ab c。d", ["カ", "ナ", "-ab", "c", "d"]),
        ("한국 말", ["한국", "말"]),
    ],
)
def test_cjk_words(text: str, words: list[str]) -> None:
    found = Words(text, "cjk")
    assert found.lengths.tolist() == list(map(len, words))
    assert found.alphabetic.tolist() == [any(map(str.isalpha, word)) for word in words]
    assert count_words(text, "cjk") == len(words)


def test_equal_words_and_only_they_have_equal_keys() -> None:
    words = [*(ENGLISH + CHINESE).split(), *map(chr, range(0x4E00, 0x9000)), "ab", "ba", "a", "aa"]
    keys = Words(" ".join(words), "whitespace").keys().tolist()
    assert len(keys) == len(words)
    assert len(set(zip(words, keys, strict=True))) == len(set(words)) == len(set(keys))


def test_keys_are_the_same_everywhere() -> None:
    keys = Words("the 中文", "whitespace").keys()
    assert keys.tolist() == [17432200690016915738, 3983706276042875942]
