"""Words of Chinese text, which has no separators between words, found by a segmenter."""

import re
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Literal

from data_prep.errors import PrepError

WordRule = Literal["pieces", "jieba"]

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")


def load_segmenter() -> Callable[[str], Iterable[str]]:
    """Return the segmenter: rjieba, jieba's algorithm and dictionary in Rust, with equal results.

    Raises:
        PrepError: rjieba is not installed.
    """
    try:
        import rjieba
    except ImportError:
        raise PrepError(
            "words by jieba need the library rjieba: pip install 'megapt[zh]'"
        ) from None
    cut: Callable[[str], Iterable[str]] = rjieba.cut
    return cut


def chinese_words(
    text: str, segment: Callable[[str], Iterable[str]]
) -> tuple[list[int], list[int]]:
    """Find the starts of Chinese words.

    Args:
        text: any text; only its runs of Chinese characters are segmented.
        segment: cuts a run into words.

    Returns:
        Two lists of ascending character positions: the start of every word in a run of Chinese
        characters; and the start and end of every run, alternating.
    """
    words: list[int] = []
    edges: list[int] = []
    for run in _HAN.finditer(text):
        edges += run.span()
        lengths = map(len, segment(run[0]))
        words += list(accumulate(lengths, initial=run.start()))[:-1]
    return words, edges
