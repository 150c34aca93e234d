"""The list of steps, the cleaner, and what holds for every step."""

import json
import pickle
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_cleaning import ADAPTER, CHINESE, ENGLISH, cleaner, kept, parse, removed
from pydantic import BaseModel, ConfigDict, ValidationError

from data_prep.cleaning import STEPS, Cleaned, Cleaner, CleaningSteps, Removed, pinned
from data_prep.errors import PrepError

ALL = [
    "mojibake",
    {"unicode": {"form": "NFKC"}},
    {"control_characters": {"joiners": True, "private_use": True}},
    {"whitespace": {"max_blank_lines": 0}},
    {"lines": {"min_words": 1, "max_copies": 2, "curly_bracket": True}},
    {"length": {"min_characters": 1, "max_words": 10**6, "min_bytes": 1}},
    {"gopher_quality": {"words": "cjk", "min_words": 2}},
    {"gopher_repetition": {"words": "cjk"}},
    {"c4": {"terminal_marks": [".", "。"], "min_sentences": 1, "words": "cjk"}},
    {"script": {"allowed": ["Latin", "Han"]}},
    "personal_data",
]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cleaning: CleaningSteps = ()


def fault(steps: Any) -> tuple[str, str]:
    """Place and message of the first fault of a config."""
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"cleaning": steps})
    error = caught.value.errors()[0]
    return ".".join(map(str, error["loc"])), error["msg"]


def test_a_name_takes_the_defaults() -> None:
    assert parse("unicode") == parse({"unicode": None}) == parse({"unicode": {"form": "NFC"}})


def test_all_steps_are_covered_here() -> None:
    assert {step.name for step in parse(*ALL)} == set(STEPS)


def test_dump_spells_out_the_defaults_and_parses_again() -> None:
    parsed = Settings.model_validate({"cleaning": ALL})
    dumped = parsed.model_dump(mode="json")
    for item, step in zip(dumped["cleaning"], parsed.cleaning, strict=True):
        [(name, values)] = item.items()
        assert name == step.name
        assert list(values) == list(type(step).model_fields)
    for copy in (dumped, json.loads(json.dumps(dumped)), yaml.safe_load(yaml.safe_dump(dumped))):
        assert Settings.model_validate(copy) == parsed
    assert Settings.model_validate({"cleaning": parsed.cleaning}) == parsed


@pytest.mark.parametrize(
    ("steps", "place", "message"),
    [
        (["lenght"], "cleaning.0.lenght", "no such step; did you mean 'length'?"),
        (
            ["unicode", {"gopher_quality": {"min_wrds": 3}}],
            "cleaning.1.gopher_quality.min_wrds",
            "no such setting; did you mean 'min_words'?",
        ),
        ([{"unicode": {"zzz": 1}}], "cleaning.0.unicode.zzz", "there are form"),
        ([{"length": {"min_words": "3"}}], "cleaning.0.length.min_words", "valid integer"),
        ([{"length": {"min_words": True}}], "cleaning.0.length.min_words", "valid integer"),
        ([{"length": {"min_words": -1}}], "cleaning.0.length.min_words", "equal to 0"),
        ([{"personal_data": {"email": 1}}], "cleaning.0.personal_data.email", "valid boolean"),
        ([{"unicode": {"form": "NFD"}}], "cleaning.0.unicode.form", "'NFC' or 'NFKC'"),
        ([{"unicode": "NFC"}], "cleaning.0.unicode", "are a mapping: `- unicode: {...}`"),
        (["length"], "cleaning.0.length", "give a bound"),
        (
            [{"length": {"min_words": 3, "max_words": 2}}],
            "cleaning.0.length",
            "min_words is above max_words",
        ),
        ([{"lines": {"javascript": False}}], "cleaning.0.lines", "every rule is off"),
        (["script"], "cleaning.0.script.allowed", "Field required"),
        (
            [{"script": {"allowed": ["Klingon"]}}],
            "cleaning.0.script.allowed.0",
            "'Latin', 'Han'",
        ),
        (
            [{"gopher_repetition": {"max_top_ngram": {2: 1.5}}}],
            "cleaning.0.gopher_repetition.max_top_ngram.2",
            "less than or equal to 1",
        ),
        (
            [{"personal_data": {"placeholders": {"email": "[MASK]"}}}],
            "cleaning.0.personal_data.placeholders.email",
            "tokenizers reserve this piece",
        ),
        ([{"unicode": {}, "c4": {}}], "cleaning.0", "a step is a name"),
        ([3], "cleaning.0", "a step is a name"),
        ({"unicode": {}}, "cleaning", "write a list of steps"),
        (["c4", "c4"], "cleaning", "c4 is listed twice in a row"),
    ],
)
def test_faults_are_placed_and_explained(steps: Any, place: str, message: str) -> None:
    found_place, found_message = fault(steps)
    assert found_place == place
    assert message in found_message


def test_a_step_may_stand_twice() -> None:
    made = Cleaner(parse({"length": {"min_words": 2}}, "lines", {"length": {"min_words": 2}}))
    assert kept(made.clean("a b\njavascript on")).text == "a b"
    assert removed(made.clean("a\njavascript on")) == "length.too_short"


def test_no_steps_change_nothing() -> None:
    assert Cleaner(()).clean("a  \0b") == Cleaned("a  \0b", Counter())


@pytest.mark.parametrize("text", ["", " \n\u3000", "javascript"])
def test_a_text_of_which_nothing_is_left_is_removed(text: str) -> None:
    assert cleaner("lines").clean(text) == Removed("empty", "nothing is left")


def test_changes_of_all_steps_are_counted() -> None:
    steps = parse("control_characters", "whitespace", "lines", "personal_data")
    outcome = kept(Cleaner(steps).clean("a\0  b\r\nuse javascript\nx@y.org 或 z@y.org"))
    assert outcome.text == "a b\n[EMAIL] 或 [EMAIL]"
    assert outcome.changes == {
        "control_characters.control": 1,
        "control_characters.line_breaks": 1,
        "whitespace.runs": 1,
        "lines.javascript": 1,
        "personal_data.email": 2,
    }


def test_trace_shows_every_step_and_goes_on_after_a_removal() -> None:
    steps = parse(
        {"length": {"min_characters": 99}}, "whitespace", {"script": {"allowed": ["Han"]}}
    )
    first, second, third = Cleaner(steps).trace(" a  b ")
    assert first.after == Removed("length.too_short", "6 characters, at least 99 needed")
    assert (second.before, second.after) == (" a  b ", "a b")
    assert third.after == Removed(
        "script.share", "0.0% of 2 letters are Han, at least 50.0% needed"
    )


def test_a_cleaner_can_be_pickled() -> None:
    made = Cleaner(parse(*ALL))
    copy = pickle.loads(pickle.dumps(made))
    assert copy.steps == made.steps
    assert copy.clean(ENGLISH) == made.clean(ENGLISH)


def test_mojibake_without_ftfy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(PrepError, match=r"needs ftfy; `pip install megapt\[clean\]`"):
        cleaner("mojibake")


def test_files_are_pinned_by_checksum(tmp_path: Path) -> None:
    words = tmp_path / "bad.txt"
    words.write_text("darn\n", encoding="utf-8")
    steps = pinned(parse("unicode", {"c4": {"bad_words_file": str(words)}}))
    assert ADAPTER.dump_python(steps, mode="json")[1]["c4"]["bad_words_sha256"]
    Cleaner(steps)
    words.write_text("heck\n", encoding="utf-8")
    with pytest.raises(PrepError, match="not the file of the settings"):
        Cleaner(steps)
    words.unlink()
    with pytest.raises(PrepError, match="cannot be read"):
        pinned(steps)


# Text with what the rules look for, so that the properties below meet it.
PIECES = [
    *("a", "the ", "And ", "word", "中", "文的", "。", "！", "…", "...", ".", '"', "”", " ", "  "),
    *("\n", "\n\n", "\t", "\r\n", "\r", "\u3000", "\xa0", "\0", "\x1b[31m", "\ufeff", "\u200d"),
    *("\u202e", "\ue000", "e\u0301", "Ã©", "â€™", "é", "ﬁ", "Ａ", "İ", "#", "•", "- ", "{", "["),
    *("[1]", "javascript", "Lorem ipsum", "terms of use", "x@y.org", "13812345678", "8.8.8.8"),
    *("2001:4860::8888", "11010519491231002X", "078-05-1120", "4111 1111 1111 1111"),
    *("+44 20 79460958", "+1 (555) 234-5678"),
]  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
IDEMPOTENT = [
    *("unicode", {"unicode": {"form": "NFKC"}}, "control_characters", "whitespace", "lines"),
    {"control_characters": {"joiners": True, "private_use": True}},
    {"whitespace": {"leading": False}},
    {"whitespace": {"collapse": False, "trailing": False}},
    {"whitespace": {"ideographic_space": False, "max_blank_lines": None}},
    {"lines": {"min_words": 2, "max_copies": 1, "terminal_marks": [".", "。"]}},
    "personal_data",
]
MADE = [(Cleaner(parse(step)), step in IDEMPOTENT) for step in [*ALL, *IDEMPOTENT]]


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_every_step_is_pure_and_truthful(text: str) -> None:
    for made, idempotent in MADE:
        outcome = made.clean(text)
        assert made.clean(text) == outcome
        if isinstance(outcome, Removed):
            assert outcome.reason.startswith((made.steps[0].name + ".", "empty"))
            continue
        outcome.text.encode()  # no half surrogates
        assert bool(outcome.changes) == (outcome.text != text), made.steps
        assert all(count > 0 for count in outcome.changes.values())
        if idempotent:
            assert made.clean(outcome.text) == Cleaned(outcome.text, Counter())


@settings(max_examples=40, deadline=None)
@given(TEXTS)
def test_all_steps_together(text: str) -> None:
    made = Cleaner(parse(*ALL))
    outcome = made.clean(text)
    last = [traced.after for traced in made.trace(text)]
    if isinstance(outcome, Cleaned):
        assert last[-1] == outcome.text
    elif outcome.reason != "empty":
        assert outcome in last


ADVERSARIAL = [
    *("a", " ", ".", "\n", "\n ", "\t ", "\r\n", '."', "a@", "a.", "@a.", "+1 ", "+1(2)", "1"),
    *("1-", "4111 ", "1.", "2001:", "(555) ", "的", "。", "，", "…", "[1", "\x1b[1", "\0"),
    *("\u200b", "\u0301\u0316", "Ã©", "â€", "İ", "THEthe", "ab cd "),
]  # fmt: skip
HUGE = 500_000  # characters; 5 million were tried by hand


@pytest.mark.parametrize("unit", ADVERSARIAL)
def test_time_is_linear_in_hostile_text(unit: str) -> None:
    # Linear steps take a few tenths of a second here, quadratic ones minutes.
    text = (unit * HUGE)[:HUGE]
    begin = time.process_time()
    for _ in Cleaner(parse(*ALL)).trace(text):
        pass
    assert time.process_time() - begin < 20


def test_prose_with_rubbish_in_between() -> None:
    steps = parse("control_characters", "whitespace", {"lines": {"curly_bracket": True}})
    for prose in (ENGLISH, CHINESE):
        tidy = kept(Cleaner(steps).clean(prose)).text
        dirty = tidy.replace("\n", "\nif (x) { y }\nenable JavaScript\u200b \r\n")
        assert kept(Cleaner(steps).clean(dirty)).text == tidy
