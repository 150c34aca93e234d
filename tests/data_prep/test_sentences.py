import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.marks.sentences import ABBREVIATIONS, sentence_boundaries


def split(text: str) -> list[str]:
    cuts = [0, *sentence_boundaries(text), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]


# "‖" marks where a sentence is to be cut.
GOLDEN = [
    "It rains.‖ We stay!‖ Really?‖ Yes.",
    "Mr. Smith met Dr. No in St. Louis.‖ He left.",
    "J. R. R. Tolkien wrote it.‖ The U.S. Army read it.",
    "See No. 5 of it.‖ No.‖ That was all.",
    "Fruit, e.g. Apples, i.e. Food.‖ Good.",
    '"Stop!" he said.‖ "Why?" she asked.‖ "Because."‖ They went.',
    "(It rains.)‖ [Applause.]‖ Thank you.",
    "Wait...‖ What?!‖ 5 men came.",
    "It costs 3.14 dollars. or so.‖ Ok",
    "One line\n‖Another line.\n\n  \n‖  Third",
    "The end. \n‖Next",
    "他走了。‖她来了！‖真的吗？‖是；‖好。",
    "他说：“你好。”‖然后走了……‖没有回来。",
    "「好！」‖他说。‖（完。）‖谢谢",
    "第一段。\n‖第二段。 \n‖第三段",
    "好!‖真的?‖他说",
    "他用 Python.‖ 很好。‖ English too.‖ 中文。",
    "价格是3.5元。‖iPhone很好",
    "A wait…and more",
]


@pytest.mark.parametrize("marked", GOLDEN)
def test_golden(marked: str) -> None:
    assert "‖".join(split(marked.replace("‖", ""))) == marked


@pytest.mark.parametrize("word", ABBREVIATIONS)
def test_abbreviation_ends_no_sentence(word: str) -> None:
    assert sentence_boundaries(f"We saw {word}. Brown there.") == []


@given(st.text(st.sampled_from('aB1 .!?。！？；…\n"”」)(“中'), max_size=40))
def test_boundaries_rise_inside_the_text(text: str) -> None:
    found = sentence_boundaries(text)
    assert found == sorted(set(found))
    assert all(0 < place < len(text) for place in found)
    for place in found:
        assert text[place - 1] in '.!?。！？；…\n"”」) ', (
            "a sentence ends in a stop, quote or newline"
        )


@given(st.text(st.sampled_from("abc ,中文，"), max_size=40))
def test_text_without_stops_is_one_sentence(text: str) -> None:
    assert sentence_boundaries(text) == []


@pytest.mark.parametrize(
    "unit", [".", "!?", "…", "。", "！？", ".”", "。”", "?“", "\n", "\n ", "No. "]
)
def test_time_is_linear_in_a_run_of_marks(unit: str) -> None:
    """Eight times the marks take about eight times as long; 64 times if time were quadratic."""

    def seconds(text: str) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            sentence_boundaries(text)
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(unit * 24_000) < 25 * seconds(unit * 3_000) + 0.01


@pytest.mark.parametrize(
    "marked", [f"Wait{'.' * 17}‖ He said", f"他说{'。' * 17}‖然后", f"他说{'！' * 12}‖然后"]
)
def test_a_run_of_stops_is_one_boundary(marked: str) -> None:
    assert "‖".join(split(marked.replace("‖", ""))) == marked
