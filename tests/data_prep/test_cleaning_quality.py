"""The rules of Gopher and C4: each threshold just inside and just outside."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prep_cleaning import CHINESE, ENGLISH, alone, cleaner, kept, removed

from data_prep.cleaning import Cleaner
from data_prep.cleaning.ngrams import repeated_ngrams
from data_prep.cleaning.words import Words
from data_prep.errors import PrepError


def check(made: Cleaner, inside: str, outside: str, reason: str) -> None:
    assert kept(made.clean(inside)).text == inside
    assert removed(made.clean(outside)) == reason


def lines(marked: str, plain: str, share: float) -> str:
    """Ten lines, of which a share is marked."""
    return "\n".join([marked] * round(share * 10) + [plain] * round((1 - share) * 10))


QUALITY = [
    ("words", {"min_words": 50}, "ab " * 50, "ab " * 49),
    ("words", {"max_words": 100_000}, "ab " * 100_000, "ab " * 100_001),
    ("mean_word_length", {"min_mean_word_length": 3}, "ab abcd", "ab abc"),
    ("mean_word_length", {"max_mean_word_length": 10}, "a" * 9 + " " + "b" * 11, "a " + "b" * 20),
    ("hash_ratio", {"max_hash_ratio": 0.1}, "#a " + "b " * 9, "#a #b " + "c " * 9),
    ("ellipsis_ratio", {"max_ellipsis_ratio": 0.1}, "a... " + "b " * 9, "a... b… " + "c " * 9),
    ("ellipsis_ratio", {"max_ellipsis_ratio": 0.1}, "a…… " + "b " * 9, "a…… b… " + "c " * 9),
    ("bullet_lines", {"max_bullet_lines": 0.9}, lines("• a", "b", 0.9), lines(" - a", "b", 1.0)),
    ("ellipsis_lines", {"max_ellipsis_lines": 0.3}, lines("a..", "b", 0.4), lines("a…", "b", 0.4)),
    ("ellipsis_lines", {"max_ellipsis_lines": 0.3}, lines("a…", "b", 0.3), lines("a...", "b", 0.4)),
    ("alphabetic_words", {"min_alphabetic_words": 0.8}, "a b c d1 2", "a b c d1 2 3"),
    ("stop_words", {"min_stop_words": 2}, "The cat, and", "the cat The androids"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "settings", "inside", "outside"), QUALITY)
def test_gopher_quality(rule: str, settings: dict[str, Any], inside: str, outside: str) -> None:
    check(alone("gopher_quality", **settings), inside, outside, f"gopher_quality.{rule}")
    defaults = cleaner("gopher_quality").steps[0]
    for name, value in settings.items():
        assert getattr(defaults, name) == value, "the published figure"


def test_gopher_quality_says_the_figure() -> None:
    outcome = alone("gopher_quality", min_mean_word_length=3.0).clean("a bc d")
    assert getattr(outcome, "figure", "") == "mean word length 1.3, at least 3 needed"
    outcome = alone("gopher_quality", max_bullet_lines=0.9).clean("- a")
    assert getattr(outcome, "figure", "") == (
        "100.0% of lines begin with a bullet, at most 90.0% allowed"
    )


def test_gopher_quality_in_chinese() -> None:
    assert removed(cleaner("gopher_quality").clean(CHINESE)) == "gopher_quality.words"
    settings: dict[str, Any] = {"words": "cjk", "stop_words": ["的", "了", "是", "with"]}
    kept(
        alone("gopher_quality", min_words=200, min_alphabetic_words=0.8, **settings).clean(CHINESE)
    )
    two = alone("gopher_quality", min_stop_words=2, **settings)
    check(two, "他的书丢了。", "他的目的。", "gopher_quality.stop_words")
    check(two, "我的 iPad With 键盘", "我的 iPad Without 键盘", "gopher_quality.stop_words")


def test_gopher_keeps_prose_and_null_switches_all_off() -> None:
    kept(cleaner("gopher_quality").clean(ENGLISH))
    kept(cleaner("gopher_repetition").clean(ENGLISH))
    kept(alone("gopher_quality").clean("#"))
    kept(alone("gopher_repetition").clean("a\na\na\na"))


def parts(copies: int, separator: str) -> str:
    """Ten parts of equal length, of which so many are copies of the first."""
    return separator.join(["aa"] * (copies + 1) + [f"b{n}" for n in range(9 - copies)])


@pytest.mark.parametrize(
    ("rule", "bound", "separator"),
    [
        ("duplicate_lines", 0.3, "\n"),
        ("duplicate_paragraphs", 0.3, "\n \n\n"),
        ("duplicate_line_characters", 0.2, " \n\n"),
        ("duplicate_paragraph_characters", 0.2, "\n\n"),
    ],
)
def test_gopher_duplicate_parts(rule: str, bound: float, separator: str) -> None:
    made = alone("gopher_repetition", **{f"max_{rule}": bound})
    assert getattr(cleaner("gopher_repetition").steps[0], f"max_{rule}") == bound
    limit = round(bound * 10)
    # 3 of 10 is not above 0.3, whatever floating point makes of 1 - 7/10.
    check(made, parts(limit, separator), parts(limit + 1, separator), f"gopher_repetition.{rule}")


def distinct(count: int) -> list[str]:
    """So many different words of two characters."""
    return [chr(0x4E00 + n) + "x" for n in range(count)]


@pytest.mark.parametrize(("n", "bound"), [(2, 0.20), (3, 0.18), (4, 0.16)])
def test_gopher_top_ngram(n: int, bound: float) -> None:
    made = alone("gopher_repetition", max_top_ngram={n: bound})
    assert cleaner("gopher_repetition").steps[0].model_dump()["max_top_ngram"][n] == bound
    gram = distinct(n)
    # Two copies of n words among so many others that they are just at, or just over, the bound.
    others = round(2 * n / bound) - 2 * n
    inside = [*gram, *distinct(1000)[n : n + others + 1], *gram]
    outside = [*gram, *distinct(1000)[n : n + others - 1], *gram]
    check(made, " ".join(inside), " ".join(outside), f"gopher_repetition.top_{n}gram")


@pytest.mark.parametrize(
    ("n", "bound"), [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)]
)
def test_gopher_duplicate_ngram(n: int, bound: float) -> None:
    made = alone("gopher_repetition", max_duplicate_ngram={n: bound})
    assert cleaner("gopher_repetition").steps[0].model_dump()["max_duplicate_ngram"][n] == bound
    gram = distinct(n)
    others = round(n / bound) - 2 * n  # the second copy alone counts
    inside = [*gram, *distinct(1000)[n : n + others + 1], *gram]
    outside = [*gram, *distinct(1000)[n : n + others - 1], *gram]
    check(made, " ".join(inside), " ".join(outside), f"gopher_repetition.duplicate_{n}gram")
    kept(made.clean(" ".join(gram)))


def test_a_short_text_without_repetition_is_kept() -> None:
    kept(cleaner("gopher_repetition").clean("Very good book"))
    kept(cleaner("gopher_repetition", words="cjk").clean("很好看。"))


def test_gopher_repetition_in_chinese() -> None:
    made = cleaner("gopher_repetition", words="cjk")
    kept(made.clean(CHINESE))
    spam = CHINESE + "加微信领取优惠券，" * 20
    assert removed(made.clean(spam)).startswith("gopher_repetition.")
    kept(cleaner("gopher_repetition").clean(spam))  # one word of whitespace repeats nothing


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "d"]), max_size=40), st.integers(1, 3))
def test_repeats_agree_with_plain_counting(words: list[str], smallest: int) -> None:
    found = Words(" ".join(words), "whitespace")
    repeats = dict(repeated_ngrams(found.keys(), found.lengths, smallest, 8))
    total = sum(map(len, words))
    for n in range(smallest, 9):
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        counts = Counter(grams)
        most = max(counts.values(), default=0)
        if most < 2:
            assert n not in repeats
            continue
        longest = max(sum(map(len, gram)) for gram in counts if counts[gram] == most)
        assert repeats[n].top_share() == pytest.approx(min(most * longest / total, 1))
        covered = {i + k for i, gram in enumerate(grams) if gram in grams[:i] for k in range(n)}
        share = sum(len(words[i]) for i in covered) / total
        assert repeats[n].duplicate_share() == pytest.approx(share)


SENTENCE = "This is a whole sentence. "
C4_LINES = [
    ("terminal_mark", "A line without its mark"),
    ("terminal_mark", "To be continued..."),
    ("too_few_words", "Two words."),
    ("javascript", "Please enable JavaScript to read on."),
    ("policy", "We have a Privacy Policy for you."),
    ("policy", "This site uses cookies, as all do."),
]


@pytest.mark.parametrize(("rule", "line"), C4_LINES)
def test_c4_drops_lines(rule: str, line: str) -> None:
    page = (SENTENCE * 3).strip()
    outcome = kept(cleaner("c4").clean(f"{page}\n{line}\n{page}"))
    assert outcome.text == f"{page}\n{page}"
    assert outcome.changes == {f"c4.{rule}": 1}


@pytest.mark.parametrize(
    "line", ["Three small words.", 'He said "so it is"', "Is this so?", "他说：“好的 是 的”"]
)
def test_c4_keeps_lines(line: str) -> None:
    text = SENTENCE * 5 + "\n" + line
    assert kept(cleaner("c4").clean(text)).text == text


def test_c4_removes_pages() -> None:
    page = SENTENCE * 5
    assert removed(cleaner("c4").clean(page + "Lorem Ipsum dolor.")) == "c4.lorem_ipsum"
    assert removed(cleaner("c4").clean(page + "x = {}.")) == "c4.curly_bracket"
    kept(cleaner("c4", curly_bracket=False, lorem_ipsum=False).clean(page + "{ lorem ipsum."))


def test_c4_counts_sentences() -> None:
    check(cleaner("c4"), SENTENCE * 5, SENTENCE * 4 + "\n", "c4.sentences")
    zh = {"terminal_marks": ["。"], "words": "cjk"}
    check(cleaner("c4", **zh), "他走了很远。" * 5, "他走了很远。" * 4, "c4.sentences")
    check(cleaner("c4", min_sentences=3, min_words=5), SENTENCE * 3, SENTENCE * 2, "c4.sentences")


def test_c4_cuts_citations() -> None:
    text = SENTENCE * 5 + "It was so.[12] It is so.[citation needed] [edit]"
    outcome = kept(cleaner("c4").clean(text))
    assert outcome.text.endswith("It was so. It is so.")
    assert outcome.changes == {"c4.citations": 3}
    assert kept(cleaner("c4", citations=False, terminal_marks=None).clean(text)).text == text


def test_c4_bad_words(tmp_path: Path) -> None:
    words = tmp_path / "bad.txt"
    words.write_text("Darn\n\n坏话\n", encoding="utf-8")
    made = alone("c4", terminal_marks=None, bad_words_file=str(words))
    check(made, "He darned socks.", "Oh, DARN it.", "c4.bad_words")
    check(made, "他说好话。", "他说坏话了。", "c4.bad_words")
    words.write_text("\n", encoding="utf-8")
    with pytest.raises(PrepError, match=r"bad\.txt: the file of bad words is empty"):
        alone("c4", bad_words_file=str(words))
    words.write_bytes(b"\xff\n")
    with pytest.raises(PrepError, match="not UTF-8"):
        alone("c4", bad_words_file=str(words))


def test_c4_removes_chinese_unless_told_about_it() -> None:
    rng = random.Random(0)
    text = "\n".join("".join(rng.choices("山河城市火车窗户", k=20)) + "。" for _ in range(6))
    assert removed(cleaner("c4").clean(text)) == "c4.sentences"
    assert kept(cleaner("c4", terminal_marks=["。"], words="cjk").clean(text)).text == text
