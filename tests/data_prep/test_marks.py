import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.marks import Marker
from data_prep.marks.sentences import sentence_boundaries
from data_prep.tokenizers import Tokenizer
from data_prep.tokenizers.sentencepiece_model import SentencePieceTokenizer

PARTS = [
    "The river ",
    "reads. ",
    "Under!",
    "我们",
    "去北京。",
    "好！",
    "\n",
    " ",
    "1999 ",
    "x-y",
    "é😀",
]
TEXTS = st.lists(st.sampled_from(PARTS), min_size=1).map("".join)


@pytest.fixture(scope="module")
def marker(tokenizer: Tokenizer) -> Marker:
    return Marker(tokenizer)


def marked(tokenizer: Tokenizer, marker: Marker, text: str) -> str:
    """The text as pieces, "‖" before sentence starts and "|" before other word starts."""
    ids = tokenizer.encode(text)
    words, sentences = marker.mark([text], ids, np.array([len(ids)], dtype=np.uint32))
    signs = ["‖" if s else "|" if w else "" for w, s in zip(words, sentences, strict=True)]
    pieces = [sign + tokenizer.piece(int(id_)) for sign, id_ in zip(signs, ids, strict=True)]
    return "".join(pieces)


GOLDEN = {
    "The river. Under it!": "‖▁The|▁river|.‖▁Under|▁it|!",
    "bread, not stone": "‖▁bread|,|▁not|▁stone",
    "in 1999 (new)": "‖▁in|▁1999|▁|(|new|)",
    "one\ntwo": "‖▁one|\n‖two",
}


@pytest.mark.parametrize(("text", "expected"), GOLDEN.items())
def test_golden_english(tokenizer: Tokenizer, marker: Marker, text: str, expected: str) -> None:
    # Bytes stand for characters that the small tokenizer has no piece for.
    found = marked(tokenizer, marker, text)
    for byte in "()!,T19":
        found = found.replace(f"<0x{ord(byte):02X}>", byte)
    assert found == expected


def test_golden_chinese(tokenizer: Tokenizer, marker: Marker) -> None:
    found = marked(tokenizer, marker, "我们去北京。老师好！")
    sentences = [part.replace("|", "").replace("▁", "") for part in found.split("‖")[1:]]
    assert sentences == ["我们去北京。", "老师好！"]
    assert found.count("|") + found.count("‖") == len(tokenizer.encode("我们去北京。老师好！"))


def test_further_bytes_of_a_character_start_nothing(tokenizer: Tokenizer, marker: Marker) -> None:
    assert marked(tokenizer, marker, "x😀").endswith("|<0xF0><0x9F><0x98><0x80>")


@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(deadline=None)
def test_marks_of_many_are_those_of_each(
    tokenizer: Tokenizer, marker: Marker, texts: list[str]
) -> None:
    encoded = [tokenizer.encode(text) for text in texts]
    lens = np.array([len(ids) for ids in encoded], dtype=np.uint32)
    words, sentences = marker.mark(texts, np.concatenate(encoded), lens)
    assert not (sentences & ~words).any(), "a sentence start is a word start"
    alone = [
        marker.mark([text], ids, np.array([len(ids)], dtype=np.uint32))
        for text, ids in zip(texts, encoded, strict=True)
    ]
    np.testing.assert_array_equal(words, np.concatenate([one for one, _ in alone]))
    np.testing.assert_array_equal(sentences, np.concatenate([one for _, one in alone]))
    starts = np.cumsum(lens) - lens
    assert sentences[starts].all()
    limit = sum(1 + len(sentence_boundaries(text)) for text in texts)
    assert sentences.sum() <= limit


@given(TEXTS)
@settings(deadline=None)
def test_sentences_are_cut_where_the_text_is(
    tokenizer: Tokenizer, marker: Marker, text: str
) -> None:
    ids = tokenizer.encode(text)
    _, sentences = marker.mark([text], ids, np.array([len(ids)], dtype=np.uint32))
    starts = np.flatnonzero(sentences)[1:]
    found = [len(tokenizer.decode(ids[:start])) for start in starts]
    assert set(found) <= _reachable(tokenizer, ids, sentence_boundaries(text))


def _reachable(tokenizer: Tokenizer, ids: "np.ndarray", boundaries: list[int]) -> set[int]:
    """For each boundary the start of the token that holds the character after it."""
    edges = [len(tokenizer.decode(ids[:stop])) for stop in range(len(ids) + 1)]
    return {max(edge for edge in edges if edge <= boundary) for boundary in boundaries}


class _ChangingTokenizer(SentencePieceTokenizer):
    """Stands for a model whose normalization changes the text."""

    def encode(self, text: str) -> "np.ndarray":
        return super().encode(text.replace("…", "..."))


def test_changed_text_is_marked_by_what_it_became(tokenizer: Tokenizer) -> None:
    changing = _ChangingTokenizer(tokenizer.data, "changing")
    marker = Marker(changing)
    assert marked(changing, marker, "The river… … … Under it.").count("‖") == 2
