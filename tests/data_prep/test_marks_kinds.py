"""Marks under tokenizers of every kind, and Chinese words by a segmenter."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_tokenizers import HF_KINDS, TEXTS, train_huggingface, train_sentencepiece

from data_prep.errors import PrepError
from data_prep.marks import Marker
from data_prep.marks.sentences import sentence_boundaries
from data_prep.marks.tables import CONTINUES, ENDS, LENGTH_SHIFT, STARTS, piece_table
from data_prep.tokenizers import Tokenizer
from data_prep.tokenizers.adopt import adopt_tokenizer

KINDS = ("unigram", "bpe", *HF_KINDS)


@pytest.fixture(scope="module")
def tokenizers(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[dict[str, Any]],
    tokenizer: Tokenizer,
) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("kinds")
    texts = [document["text"] for document in documents]
    (folder / "bpe.model").write_bytes(
        train_sentencepiece(
            texts, model_type="bpe", byte_fallback=True, normalization_rule_name="identity"
        )
    )
    paths = {kind: train_huggingface(kind, texts, folder / f"{kind}.json") for kind in HF_KINDS}
    paths["bpe"] = folder / "bpe.model"
    found = {kind: adopt_tokenizer(path, folder / kind) for kind, path in paths.items()}
    return {**found, "hf_unigram": found["unigram"], "unigram": tokenizer}


ALL = [*KINDS, "hf_unigram"]


@pytest.fixture(scope="module")
def markers(tokenizers: dict[str, Tokenizer]) -> dict[tuple[str, str], Marker]:
    return {
        (kind, words): Marker(tokenizer, words)  # type: ignore[arg-type]
        for kind, tokenizer in tokenizers.items()
        for words in ("pieces", "jieba")
    }


def mark_one(marker: Marker, text: str, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return marker.mark([text], ids, np.array([len(ids)], dtype=np.uint32))


def shown(tokenizer: Tokenizer, marker: Marker, text: str) -> str:
    """The text with "‖" before sentence starts and "|" before other word starts."""
    ids = tokenizer.encode(text)
    words, sentences = mark_one(marker, text, ids)
    parts: list[bytes] = []
    for id_, word, sentence in zip(ids.tolist(), words, sentences, strict=True):
        parts.append("‖".encode() if sentence else b"|" if word else b"")
        parts.append(tokenizer.surfaces[id_])
    return b"".join(parts).decode()


ENGLISH = "The river reads. Under it, the teacher's bread!\nAnswer"
GOLDEN = {
    "unigram": "‖ The| river| reads|.‖ Under| it|,| the| teacher|'|s| bread|!|\n‖Answer",
    "byte_bpe": "‖The| river| reads|.‖ Under| it|,| the| teacher|'|s| bread|!|\n‖Answer",
    "wordpiece": "‖ the| river| reads| .‖ under| it| the| teacher| s| bread| !‖ answer",
}


@pytest.mark.parametrize("kind", GOLDEN)
def test_golden_english(
    tokenizers: dict[str, Tokenizer], markers: dict[Any, Marker], kind: str
) -> None:
    found = shown(tokenizers[kind], markers[kind, "pieces"], ENGLISH)
    assert found.replace("| [UNK]", "") == GOLDEN[kind]  # WordPiece saw no "," in training


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte_bpe", "wordpiece"])
def test_golden_chinese(
    tokenizers: dict[str, Tokenizer], markers: dict[Any, Marker], kind: str
) -> None:
    text = "我们去北京。老师很高兴！"
    found = shown(tokenizers[kind], markers[kind, "pieces"], text)
    sentences = [part.replace("|", "").replace(" ", "") for part in found.split("‖")[1:]]
    assert sentences == ["我们去北京。", "老师很高兴！"]


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte_bpe", "wordpiece"])
def test_words_of_the_segmenter(
    tokenizers: dict[str, Tokenizer], markers: dict[Any, Marker], kind: str
) -> None:
    """A word starts at the token that holds its first character, and nowhere inside a word."""
    tokenizer = tokenizers[kind]
    expected = [
        "我们",
        "今天",
        "去",
        "北京",
        "学习",
        "音乐",
        "。",
        "the",
        "老师",
        "很",
        "高兴",
        "。",
    ]
    text = "".join(expected)
    ids = tokenizer.encode(text)
    words, _ = mark_one(markers[kind, "jieba"], text, ids)
    surfaces = [tokenizer.surfaces[id_] for id_ in ids]
    if kind == "wordpiece":  # it has no spaces of its own here
        surfaces = [surface.strip() for surface in surfaces]
    spelled = b"".join(surfaces)
    assert spelled.decode().lstrip() == text
    ends = np.cumsum([len(surface) for surface in surfaces])
    places = np.cumsum([len(spelled) - len(text.encode()), *(len(w.encode()) for w in expected)])
    starts = np.searchsorted(ends, places[:-1], side="right").tolist()
    assert np.flatnonzero(words).tolist() == sorted({0, *starts})


def test_a_piece_over_a_word_boundary_starts_the_later_word(tokenizer: Tokenizer) -> None:
    marker = Marker(tokenizer, "jieba")
    marker._segment = lambda run: [run[:1], run[1:3], run[3:]]
    for piece in ("我们", "北京", "老师", "朋友"):
        text = f"我{piece}去"
        ids = tokenizer.encode(text)
        words, _ = mark_one(marker, text, ids)
        ends = np.cumsum([len(tokenizer.surfaces[id_].decode()) for id_ in ids]) - 1
        starts = [int(np.searchsorted(ends, place, side="right")) for place in (0, 1, 3)]
        assert np.flatnonzero(words).tolist() == sorted({0, *starts})


def test_the_segmenter_is_missing(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(PrepError, match=r"need the library rjieba: pip install 'megapt\[zh\]'"):
        Marker(tokenizer, "jieba")


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=4),
    kind=st.sampled_from(ALL),
    rule=st.sampled_from(["pieces", "jieba"]),
)
@settings(deadline=None, max_examples=300)
def test_marks_of_every_kind(
    tokenizers: dict[str, Tokenizer],
    markers: dict[Any, Marker],
    texts: list[str],
    kind: str,
    rule: str,
) -> None:
    tokenizer, marker = tokenizers[kind], markers[kind, rule]
    encoded = [(text, tokenizer.encode(text)) for text in texts]
    encoded = [(text, ids) for text, ids in encoded if len(ids)]
    if not encoded:
        return
    lens = np.array([len(ids) for _, ids in encoded], dtype=np.uint32)
    words, sentences = marker.mark(
        [text for text, _ in encoded], np.concatenate([ids for _, ids in encoded]), lens
    )
    assert sentences[np.cumsum(lens) - lens].all(), "a text starts a word and a sentence"
    assert not (sentences & ~words).any(), "a sentence start is a word start"
    alone = [mark_one(marker, text, ids) for text, ids in encoded]
    np.testing.assert_array_equal(words, np.concatenate([one for one, _ in alone]))
    np.testing.assert_array_equal(sentences, np.concatenate([one for _, one in alone]))


@given(text=TEXTS, kind=st.sampled_from(["byte_bpe", "unigram"]))
@settings(deadline=None)
def test_sentences_start_at_the_token_after_the_boundary(
    tokenizers: dict[str, Tokenizer], markers: dict[Any, Marker], text: str, kind: str
) -> None:
    """By hand: the token that holds the first byte of the character at each boundary."""
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    if not len(ids):
        return
    added = 0 if kind == "byte_bpe" else 1
    ends = np.cumsum([len(tokenizer.surfaces[id_]) for id_ in ids])
    text = text.replace("▁", " ") if added else text
    places = [len(text[:place].encode()) + added for place in sentence_boundaries(text)]
    expected = {0, *(int(np.searchsorted(ends, place, side="right")) for place in places)}
    _, sentences = mark_one(markers[kind, "pieces"], text, ids)
    assert set(np.flatnonzero(sentences).tolist()) == expected


@pytest.mark.parametrize(
    ("surface", "flags", "length"),
    [
        (b" the", STARTS, 4),
        (b"the", 0, 3),
        (b".", STARTS | ENDS, 1),
        (b"ing.", ENDS, 4),
        ("我".encode(), STARTS | ENDS, 1),
        (" 我".encode(), STARTS | ENDS, 2),
        ("我".encode()[:2], STARTS, 1),
        (" 我".encode()[:3], STARTS, 2),
        ("我".encode()[2:], CONTINUES, 0),
        ("我们".encode()[2:], CONTINUES | ENDS, 1),
        ("我们".encode()[1:4], CONTINUES, 1),
        ("。".encode()[:2], STARTS, 1),
        ("x。".encode()[:3], 0, 2),
        ("é".encode(), 0, 1),
        (b"\n", STARTS | ENDS, 1),
        (b"", 0, 0),
    ],
)
def test_flags_of_pieces(tokenizer: Tokenizer, surface: bytes, flags: int, length: int) -> None:
    class One(type(tokenizer)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.surfaces = [surface]

        def is_byte(self, id_: int) -> bool:
            return False

    found = int(piece_table(One())[0])
    assert (found & (1 << LENGTH_SHIFT) - 1, found >> LENGTH_SHIFT) == (flags, length)


def test_marks_do_not_need_a_file(tokenizers: dict[str, Tokenizer], tmp_path: Path) -> None:
    """A tokenizer that left its folder, as in a worker process, marks the same."""
    import pickle

    for tokenizer in tokenizers.values():
        other = pickle.loads(pickle.dumps(tokenizer))
        ids = tokenizer.encode("The river. 我们去。")
        for mine, others in zip(
            mark_one(Marker(tokenizer), "The river. 我们去。", ids),
            mark_one(Marker(other), "The river. 我们去。", ids),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, others)
