from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_tokenizers import TEXTS, train_huggingface, train_sentencepiece

from data_prep.tokenizers import Tokenizer, huggingface, sentencepiece_model
from data_prep.tokenizers.adopt import adopt_tokenizer
from data_prep.tokenizers.sentencepiece_model import SentencePieceTokenizer
from data_prep.tokenizers.word_cache import Neighbors, WordCache, code_points

# Models as this project trains them, and as others do: with pieces of several spaces, with
# pieces over several words, without the space at the beginning, with newlines in bytes.
OPTIONS: dict[str, dict[str, Any]] = {
    "ours": {"split_digits": True, "user_defined_symbols": ["\n", "\t"]},
    "spaces": {"allow_whitespace_only_pieces": True, "user_defined_symbols": ["▁▁▁▁"]},
    "phrases": {"split_by_whitespace": False, "split_by_unicode_script": False},
    "no_prefix": {"add_dummy_prefix": False, "user_defined_symbols": ["\n"]},
}


@pytest.fixture(scope="module")
def models(
    tmp_path_factory: pytest.TempPathFactory, documents: list[dict[str, Any]]
) -> dict[str, Tokenizer]:
    folder = tmp_path_factory.mktemp("bpe")
    texts = [line for document in documents for line in document["text"].split("\n")]
    found: dict[str, Tokenizer] = {}
    for name, options in OPTIONS.items():
        path = folder / f"{name}.model"
        exact = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
        path.write_bytes(
            train_sentencepiece(
                texts, model_type="bpe", byte_fallback=True, vocab_size=800, **exact, **options
            )
        )
        found[name] = adopt_tokenizer(path, folder / name, sentinels=2)
    path = train_huggingface("byte_bpe", texts, folder / "byte_bpe.json")
    found["byte_bpe"] = adopt_tokenizer(path, folder / "byte_bpe", sentinels=2)
    return found


def library_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """What the library itself gives for the whole text."""
    if tokenizer.kind == "sentencepiece":
        found: list[int] = spm.SentencePieceProcessor(model_proto=tokenizer.data).encode(text)
        return found
    library = tokenizers.Tokenizer.from_str(tokenizer.data.decode())
    library.encode_special_tokens = True
    ids: list[int] = library.encode(text, add_special_tokens=False).ids
    return ids


@given(text=TEXTS, name=st.sampled_from([*OPTIONS, "byte_bpe"]), chinese=st.booleans())
@settings(deadline=None, max_examples=300)
def test_ids_are_those_of_the_library(
    models: dict[str, Tokenizer], text: str, name: str, chinese: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if chinese:  # Chinese text is cut, too, where it is otherwise encoded whole
            patch.setattr(sentencepiece_model, "_CJK_START", 0x110000)
            patch.setattr(huggingface, "_LONG_CHARACTERS", 0)
        assert models[name].encode(text).tolist() == library_ids(models[name], text)


@pytest.mark.parametrize("name", [*OPTIONS, "byte_bpe"])
def test_ids_of_documents_are_those_of_the_library(
    models: dict[str, Tokenizer], documents: list[dict[str, Any]], name: str
) -> None:
    for document in documents[:60]:
        text = document["text"].replace(". ", ".  \t") + " x"
        assert models[name].encode(text).tolist() == library_ids(models[name], text)


@pytest.mark.parametrize("name", ["ours", "no_prefix"])
def test_long_text_in_parts_gives_the_same_ids(models: dict[str, Tokenizer], name: str) -> None:
    text = "the river  under the old window\nthe garden 我们去北京。 " * 20
    whole = models[name].encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentencepiece_model, "PART_CHARACTERS", 90)
        np.testing.assert_array_equal(models[name].encode(text), whole)


def test_only_bpe_is_cached(models: dict[str, Tokenizer], tokenizer: Tokenizer) -> None:
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert not tokenizer.is_cached, "unigram rounds its sums along the whole text"
    for name in OPTIONS:
        cached = models[name]
        assert isinstance(cached, SentencePieceTokenizer)
        assert cached.is_cached


def test_a_model_that_changes_text_is_not_cached(
    documents: list[dict[str, Any]], tmp_path: Path
) -> None:
    texts = [document["text"] for document in documents]
    for number, options in enumerate(
        [{"normalization_rule_name": "nmt_nfkc"}, {"remove_extra_whitespaces": True}]
    ):
        exact = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
        path = tmp_path / f"{number}.model"
        data = train_sentencepiece(
            texts, model_type="bpe", byte_fallback=True, **{**exact, **options}
        )
        path.write_bytes(data)
        adopted = adopt_tokenizer(path, tmp_path / f"out{number}")
        assert isinstance(adopted, SentencePieceTokenizer)
        assert not adopted.is_cached


@given(st.lists(st.lists(st.text("ab我", min_size=1, max_size=3), max_size=8), max_size=8))
def test_a_cache_is_bounded_and_right(texts: list[list[str]]) -> None:
    def encode(parts: Any) -> list[np.ndarray]:
        return [np.array([ord(c) for c in part], dtype=np.int32) for part in parts]

    cache = WordCache(encode, parts=4)
    for parts in texts:
        assert cache.encode(parts).tolist() == [ord(c) for c in "".join(parts)]
        assert len(cache) <= 4


def test_a_part_is_encoded_once() -> None:
    asked: list[str] = []

    def encode(parts: Any) -> list[np.ndarray]:
        asked.extend(parts)
        return [np.array([1], dtype=np.int32) for _ in parts]

    cache = WordCache(encode)
    for parts in (["a", "b", "a"], ["b", "c"], ["c"]):
        cache.encode(parts)
    assert sorted(asked) == ["a", "b", "c"]


@given(st.lists(st.text("ab 我", min_size=1, max_size=4)), st.text("ab 我", min_size=1))
def test_texts_are_cut_where_no_piece_joins(pieces: list[str], text: str) -> None:
    parts = Neighbors(pieces).cut(text, code_points(text))
    assert "".join(parts) == text
    assert all(parts)
    joined = {piece[i : i + 2] for piece in pieces for i in range(len(piece) - 1)}
    for left, right in pairwise(parts):
        assert left[-1] + right[0] not in joined
