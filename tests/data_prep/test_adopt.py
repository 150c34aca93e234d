import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prep_tokenizers import HF_KINDS, TEXTS, train_huggingface, train_sentencepiece

from data_prep.errors import PrepError
from data_prep.tokenizers import Tokenizer, load_tokenizer
from data_prep.tokenizers.adopt import ALIASES, adopt_tokenizer
from data_prep.tokenizers.base import reserved_pieces

KINDS = ("sentencepiece", *HF_KINDS)
SENTINELS = 5


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> dict[str, Path]:
    """A tokenizer of every kind, none of them made for this project."""
    folder = tmp_path_factory.mktemp("foreign")
    found = {kind: train_huggingface(kind, texts, folder / f"{kind}.json") for kind in HF_KINDS}
    found["sentencepiece"] = folder / "foreign.model"
    found["sentencepiece"].write_bytes(
        train_sentencepiece(texts, user_defined_symbols=["<mask>", "<fim_prefix>", "<sep>"])
    )
    return found


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory, sources: dict[str, Path]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("adopted")
    return {
        kind: adopt_tokenizer(source, folder / kind, sentinels=SENTINELS)
        for kind, source in sources.items()
    }


@pytest.fixture(scope="module")
def texts(documents: list[dict[str, Any]]) -> list[str]:
    return [document["text"] for document in documents]


@pytest.mark.parametrize("kind", KINDS)
def test_every_reserved_piece_has_an_id_of_its_own(adopted: dict[str, Any], kind: str) -> None:
    tokenizer: Tokenizer = adopted[kind]
    ours = reserved_pieces(SENTINELS)
    ids = [tokenizer.pieces.index(piece) for piece in ours]
    assert len(set(ids)) == len(ours)
    assert set(ids) <= set(tokenizer.vocabulary.reserved)
    assert tokenizer.vocabulary.sentinels == ids[-SENTINELS:]
    assert (tokenizer.vocabulary.pad, tokenizer.vocabulary.mask) == (ids[0], ids[6])


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_written_is_the_tokenizer_returned(adopted: dict[str, Any], kind: str) -> None:
    tokenizer: Tokenizer = adopted[kind]
    loaded = load_tokenizer(Path(tokenizer.name).parent)
    again = pickle.loads(pickle.dumps(loaded))
    assert loaded.data == tokenizer.data == again.data
    assert loaded.vocabulary == again.vocabulary
    assert loaded.file_name == Path(tokenizer.name).name


def ids_before(kind: str, path: Path, text: str) -> list[int]:
    if kind == "sentencepiece":
        import sentencepiece

        found: list[int] = sentencepiece.SentencePieceProcessor(model_file=str(path)).encode(text)
        return found
    import tokenizers

    ids: list[int] = tokenizers.Tokenizer.from_file(str(path)).encode(text).ids
    return ids


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_text_keeps_its_ids(
    adopted: dict[str, Any], sources: dict[str, Path], texts: list[str], kind: str
) -> None:
    for text in texts[:40]:
        assert adopted[kind].encode(text).tolist() == ids_before(kind, sources[kind], text)


@pytest.mark.parametrize("kind", KINDS)
def test_special_pieces_keep_their_ids_under_our_names(
    adopted: dict[str, Any], sources: dict[str, Path], kind: str
) -> None:
    expected = {
        "sentencepiece": {"[UNK]": 0, "[BOS]": 1, "[EOS]": 2, "[MASK]": 3, "[PRE]": 4, "[SEP]": 5},
        "byte_bpe": {"[EOS]": 0},
        "wordpiece": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4},
        "unigram": {"[PAD]": 0, "[EOS]": 1, "[UNK]": 2, "[BOS]": 3, "[MASK]": 4},
    }[kind]
    pieces = adopted[kind].pieces
    assert {name: pieces.index(name) for name in expected} == expected
    added = len(reserved_pieces(SENTINELS)) - len(expected)
    assert pieces[-added:] == [n for n in reserved_pieces(SENTINELS) if n not in expected]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reserved_piece_spelled_in_a_text_is_text(adopted: dict[str, Any], kind: str) -> None:
    tokenizer: Tokenizer = adopted[kind]
    unknown = tokenizer.vocabulary.unk
    for id_ in tokenizer.vocabulary.reserved:
        for text in ("{}", "the {} river", "the{}river", "我们{}去", "{}{}"):
            ids = tokenizer.encode(text.replace("{}", tokenizer.pieces[id_]))
            assert len(ids)
            assert set(ids.tolist()) & set(tokenizer.vocabulary.reserved) <= {unknown}
            if tokenizer.lossless:
                assert unknown not in ids


@given(text=TEXTS, kind=st.sampled_from(KINDS))
@settings(deadline=None)
def test_no_text_yields_a_reserved_id(adopted: dict[str, Any], text: str, kind: str) -> None:
    tokenizer: Tokenizer = adopted[kind]
    reserved = tokenizer.vocabulary.reserved_table[tokenizer.encode(text)]
    assert not (reserved & (tokenizer.encode(text) != tokenizer.vocabulary.unk)).any()


@given(TEXTS)
@settings(deadline=None)
def test_byte_level_bpe_loses_nothing(adopted: dict[str, Any], text: str) -> None:
    tokenizer: Tokenizer = adopted["byte_bpe"]
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.surfaces[id_] for id_ in ids).decode() == text


def test_what_is_lost_is_told(adopted: dict[str, Any]) -> None:
    assert adopted["byte_bpe"].lossless
    assert adopted["byte_bpe"].lost == []
    assert {"English", "a newline"} <= set(adopted["wordpiece"].lost)
    assert not adopted["wordpiece"].lossless
    assert "emoji" in adopted["unigram"].lost
    assert "double spaces" in adopted["sentencepiece"].lost, "it removes extra spaces"


@pytest.mark.parametrize("kind", KINDS)
def test_text_inside_a_text_keeps_its_space(adopted: dict[str, Any], kind: str) -> None:
    tokenizer: Tokenizer = adopted[kind]
    ids = tokenizer.encode("the river reads")
    begin = next(i for i in range(1, len(ids)) if tokenizer.surfaces[ids[i]].startswith(b" "))
    assert tokenizer.decode(ids[begin:], inside=True).startswith(" ")
    whole = tokenizer.decode(ids[:begin]) + tokenizer.decode(ids[begin:], inside=True)
    assert whole == "the river reads"


def test_adopting_twice_changes_nothing(adopted: dict[str, Any], tmp_path: Path) -> None:
    for kind in KINDS:
        path = Path(adopted[kind].name)
        again = adopt_tokenizer(path, tmp_path / kind, sentinels=SENTINELS)
        assert again.vocabulary == adopted[kind].vocabulary
        assert again.data == adopted[kind].data


def test_a_trained_tokenizer_needs_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    again = adopt_tokenizer(Path(tokenizer.name), tmp_path)
    assert (again.vocabulary, again.pieces) == (tokenizer.vocabulary, tokenizer.pieces)
    assert (
        again.encode("the river 我们\n").tolist() == tokenizer.encode("the river 我们\n").tolist()
    )


def test_a_piece_named_by_the_user_is_taken(sources: dict[str, Path], tmp_path: Path) -> None:
    named = {"CLS": "<mask>", "<extra_id_1>": "<sep>"}
    tokenizer = adopt_tokenizer(sources["sentencepiece"], tmp_path, named, SENTINELS)
    assert tokenizer.vocabulary.cls == 3
    assert tokenizer.vocabulary.sentinels[1] == 5
    assert tokenizer.vocabulary.mask > 5, "its alias serves as [CLS], so it is appended"


REFUSED = [
    ("sentencepiece", {"MASK": "<nothing>"}, r"has no piece '<nothing>' that could be \[MASK\]"),
    ("sentencepiece", {"MASK": "▁the"}, r"'▁the' is a piece of ordinary text .* as \[MASK\]"),
    ("byte_bpe", {"MASK": "Ġthe"}, "'Ġthe' is a piece of ordinary text"),
    ("byte_bpe", {"BOS": "<|endoftext|>", "EOS": "<|endoftext|>"}, r"both \[BOS\] and \[EOS\]"),
    ("sentencepiece", {"UNK": "<mask>"}, r"'<mask>' cannot be \[UNK\], which is '<unk>' here"),
    ("wordpiece", {"CLS": "[SEP]"}, r"'\[SEP\]' is a reserved piece itself and cannot be \[CLS\]"),
    ("unigram", {"MUSK": "<mask>"}, r"--special MUSK=<mask>: no reserved piece is called MUSK"),
]


@pytest.mark.parametrize(("kind", "special", "message"), REFUSED)
def test_what_cannot_serve_is_refused(
    sources: dict[str, Path], tmp_path: Path, kind: str, special: dict[str, str], message: str
) -> None:
    with pytest.raises(PrepError, match=message) as raised:
        adopt_tokenizer(sources[kind], tmp_path / "out", special, SENTINELS)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_our_name_and_another_for_one_piece(adopted: dict[str, Any], tmp_path: Path) -> None:
    path = Path(adopted["unigram"].name)
    settings_ = json.loads(path.read_text())
    settings_["added_tokens"].append(
        {
            **settings_["added_tokens"][-1],
            "content": "<x>",
            "id": adopted["unigram"].vocabulary.size,
        }
    )
    changed = tmp_path / "tokenizer.json"
    changed.write_text(json.dumps(settings_))
    with pytest.raises(PrepError, match=r"has a piece \[MASK\] already; '<x>' cannot be it too"):
        adopt_tokenizer(changed, tmp_path / "out", {"MASK": "<x>"}, SENTINELS)


def edited(source: Path, target: Path, **model: Any) -> Path:
    settings_ = json.loads(source.read_text())
    settings_["model"].update(model)
    target.write_text(json.dumps(settings_))
    return target


def test_a_model_without_a_piece_for_the_unknown(sources: dict[str, Path], tmp_path: Path) -> None:
    path = edited(sources["unigram"], tmp_path / "tokenizer.json", unk_id=None)
    with pytest.raises(PrepError, match=r"no piece for unknown characters.*\[UNK\] cannot be"):
        adopt_tokenizer(path, tmp_path / "out")


def test_gaps_between_the_ids_are_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    vocab = json.loads(sources["wordpiece"].read_text())["model"]["vocab"]
    vocab[max(vocab, key=lambda piece: vocab[piece])] += 7
    path = edited(sources["wordpiece"], tmp_path / "tokenizer.json", vocab=vocab)
    with pytest.raises(PrepError, match="do not have the ids 0 to"):
        adopt_tokenizer(path, tmp_path / "out")


def test_pieces_that_end_words_are_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    path = edited(sources["byte_bpe"], tmp_path / "tokenizer.json", end_of_word_suffix="</w>")
    with pytest.raises(PrepError, match="mark the end of a word"):
        adopt_tokenizer(path, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"hello", b'{"a": 1}', b"{]", b"\x0a\x03\x0a\x01a"])
def test_a_file_that_is_neither(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(
        PrepError, match=r"file: not a (SentencePiece model|tokenizer\.json)"
    ) as error:
        adopt_tokenizer(path, tmp_path / "out")
    assert "\n" not in str(error.value)


def test_a_tokenizer_that_was_not_adopted_is_told_how(sources: dict[str, Path]) -> None:
    for kind in KINDS:
        with pytest.raises(
            PrepError, match=r"lacks the control pieces .*`megapt-prep tokenizer --f"
        ):
            load_tokenizer(sources[kind])


def test_the_library_is_missing(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(
        PrepError, match=r"needs the library tokenizers: pip install 'megapt\[hf\]'"
    ):
        adopt_tokenizer(sources["byte_bpe"], tmp_path)


def test_truncation_and_padding_of_the_file_are_dropped(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    import tokenizers

    library = tokenizers.Tokenizer.from_file(str(sources["byte_bpe"]))
    library.enable_truncation(4)
    library.enable_padding(length=8)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = adopt_tokenizer(tmp_path, tmp_path / "out")
    assert tokenizer.decode(tokenizer.encode("the river " * 9)) == "the river " * 9
    assert len(tokenizer.encode("a")) == 1


def test_no_alias_stands_for_two() -> None:
    names = [alias for aliases in ALIASES.values() for alias in aliases]
    assert len(names) == len(set(names))
