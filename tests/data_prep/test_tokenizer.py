import pickle
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.errors import PrepError
from data_prep.tokenizers import Tokenizer, load_tokenizer
from data_prep.tokenizers import sentencepiece_model as module
from data_prep.tokenizers.sentencepiece_model import cut_text

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=60)
MIXED = st.lists(
    st.sampled_from(
        ["the river ", "我们", "北京。", " ", "  ", "\n", "\t", "\r\n", "😀", "[MASK]", "x"]
    )
).map("".join)


def test_reserved_ids_are_fixed(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    names = "[PAD] [UNK] [BOS] [EOS] [CLS] [SEP] [MASK] [NLU] [NLG] [S2S] [PRE] [SUF] [MID]"
    assert " ".join(tokenizer.pieces[:13]) == names
    assert (vocabulary.pad, vocabulary.unk, vocabulary.mask) == (0, 1, 6)
    assert vocabulary.modes == {"NLU": 7, "NLG": 8, "S2S": 9}
    assert vocabulary.infilling == {"PRE": 10, "SUF": 11, "MID": 12}
    assert vocabulary.sentinels == list(range(13, 113))
    assert tokenizer.piece(13) == "<extra_id_0>"
    assert tokenizer.piece(112) == "<extra_id_99>"
    assert vocabulary.reserved == list(range(113))
    assert vocabulary.ordinary.tolist() == list(range(113, 520))
    assert vocabulary.size == len(tokenizer.pieces) == 520


@given(st.one_of(TEXT, MIXED))
@settings(deadline=None)
def test_encoding_loses_nothing(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text


@given(st.lists(st.sampled_from(["[MASK]", "<extra_id_0>", "[UNK]", "\u0000", "a ", "我"])))
def test_text_never_yields_a_reserved_id(tokenizer: Tokenizer, parts: list[str]) -> None:
    ids = tokenizer.encode("".join(parts))
    assert not tokenizer.vocabulary.reserved_table[ids].any()


def test_the_one_character_that_does_not_come_back(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a▁b")) == "a b"


def test_newlines_and_tabs_are_single_tokens(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("the\n\n\triver")
    assert [tokenizer.piece(int(id_)) for id_ in ids[1:4]] == ["\n", "\n", "\t"]


@given(MIXED, st.integers(2, 9))
def test_cut_text_loses_nothing(text: str, limit: int) -> None:
    parts = list(cut_text(text, limit))
    assert "".join(parts) == text
    assert all(len(part) <= limit for part in parts)


@given(MIXED, st.integers(2, 12))
@settings(deadline=None)
def test_long_text_in_parts_loses_nothing(tokenizer: Tokenizer, text: str, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART_CHARACTERS", limit)
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_parts_cut_at_spaces_give_the_same_tokens(tokenizer: Tokenizer) -> None:
    text = "the river under the old window " * 20
    whole = tokenizer.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PART_CHARACTERS", 100)
        np.testing.assert_array_equal(tokenizer.encode(text), whole)


def test_pickled_tokenizer_is_the_same(tokenizer: Tokenizer) -> None:
    other = pickle.loads(pickle.dumps(tokenizer))
    assert other.sha256 == tokenizer.sha256
    assert other.vocabulary == tokenizer.vocabulary


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(PrepError, match="no such file"):
        load_tokenizer(tmp_path / "none.model")
    with pytest.raises(PrepError, match="is a folder with no tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x0a\xff\xff"])
def test_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.model"
    path.write_bytes(content)
    with pytest.raises(PrepError, match=r"bad\.model: not a SentencePiece model"):
        load_tokenizer(path)


def test_foreign_model_is_told_what_it_lacks(tmp_path: Path, corpus_file: Path) -> None:
    spm.SentencePieceTrainer.train(
        input=str(corpus_file),
        model_prefix=str(tmp_path / "foreign"),
        vocab_size=400,
        control_symbols=["[CLS]"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(PrepError, match=r"lacks the control pieces \[PAD\], \[UNK\].*<extra_id_0>"):
        load_tokenizer(tmp_path / "foreign.model")
