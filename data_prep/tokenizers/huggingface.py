"""Hugging Face `tokenizer.json` files as tokenizers (the extra `megapt[hf]`)."""

import json
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import MissingPackageError, PrepError
from data_prep.tokenizers.base import WORD_MARK, Tokenizer, make_vocabulary
from data_prep.tokenizers.word_cache import WordCache

if TYPE_CHECKING:
    import tokenizers

_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")

# Pre-tokenizers of byte-level BPE by their pattern: GPT-2 (inside ByteLevel), GPT-4 and
# Llama 3, Qwen. All of them begin a new part at a space before a letter where no space stands
# before it, and at a punctuation mark after a Chinese character.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_KNOWN_PATTERNS = {_PATTERN % "", _PATTERN % "{1,3}"}
_SAFE_CUT = re.compile("(?<=[!-~])(?= [A-Za-z])|(?<=[\u4e00-\u9fa5])(?=[，。、！？；：])")
# The library needs some 90 bytes a character: of a long text, only parts are held at a time.
_LONG_CHARACTERS = 1 << 20
_BATCH_PARTS = 1 << 12


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the library `tokenizers`: byte-level BPE, WordPiece, Unigram or BPE.

    Args:
        data: content of the `tokenizer.json`.
        name: what error messages call it, usually its path.

    Raises:
        PrepError: `data` is no such file, is of a kind that is not supported, or lacks
            reserved pieces.
    """

    kind = "huggingface"
    file_name = "tokenizer.json"

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data, name)
        self._tokenizer = load_library_tokenizer(data, name)
        self._tokenizer.encode_special_tokens = True  # "[MASK]" in a text is text
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        settings: dict[str, Any] = json.loads(data)
        ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        size = 1 + max(ids.values(), default=-1)
        self.pieces = [""] * size
        for piece, id_ in ids.items():
            self.pieces[id_] = piece
        special = {t["content"] for t in settings["added_tokens"] if t["special"]}
        holes = set(range(size)).difference(ids.values())
        silent = {piece: ids[piece] for piece in sorted(special & ids.keys())}
        self.vocabulary = make_vocabulary(name, silent, size, holes)
        style = _Style(settings, name)
        added = {t["id"] for t in settings["added_tokens"]}
        self.surfaces = [
            piece.encode() if id_ in added else style.surface(piece)
            for id_, piece in enumerate(self.pieces)
        ]
        if style.words and self.vocabulary.unk < size:
            self.surfaces[self.vocabulary.unk] = b" " + self.pieces[self.vocabulary.unk].encode()
        self._is_byte = [style.is_byte(piece) for piece in self.pieces]
        self._takes_space = self._find_takes_space()
        self._spelled: dict[int, list[int]] = {}
        self._never = self.vocabulary.reserved_table.copy()
        self._never[self.vocabulary.unk] = False
        self._cache = WordCache(self._encode_parts) if _cuts_at_spaces(settings) else None

    def is_byte(self, id_: int) -> bool:
        """See `Tokenizer.is_byte`."""
        return self._is_byte[id_]

    def encode(self, text: str) -> NDArray[np.int32]:
        """See `Tokenizer.encode`."""
        size = len(text.encode())  # the library would take half a surrogate pair for U+FFFD
        # Parts of Chinese seldom repeat.
        chinese = size > 2 * len(text)
        if self._cache is None or (chinese and len(text) <= _LONG_CHARACTERS):
            return self._encode_parts([text])[0]
        return self._cache.encode(_SAFE_CUT.split(text))

    def _encode_parts(self, parts: Sequence[str]) -> list[NDArray[np.int32]]:
        found: list[NDArray[np.int32]] = []
        for start in range(0, len(parts), _BATCH_PARTS):
            batch = list(parts[start : start + _BATCH_PARTS])
            encoded = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            found += [self._spell_out(np.array(one.ids, dtype=np.int32)) for one in encoded]
        return found

    def _spell_out(self, ids: NDArray[np.int32]) -> NDArray[np.int32]:
        """Replace reserved ids, which some models find in a text that spells their names.

        The library does not look for special pieces here, but a model that has their names
        among its pieces may: the Unigram model does, and WordPiece if spaces stand around.
        """
        if not self._never[ids].any():
            return ids
        parts = [self._spelling(id_) if self._never[id_] else [id_] for id_ in ids.tolist()]
        return np.array([id_ for part in parts for id_ in part], dtype=np.int32)

    def _spelling(self, id_: int) -> list[int]:
        if id_ not in self._spelled:
            model = self._tokenizer.model
            tokens = [token for c in self.pieces[id_] for token in model.tokenize(c)]
            known = [token.id for token in tokens if not self._never[token.id]]
            self._spelled[id_] = known or [self.vocabulary.unk]
        return self._spelled[id_]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _loses_space(self, id_: int) -> bool:
        return self._takes_space and self._begins_with_space(id_)

    def _begins_with_space(self, id_: int) -> bool:
        return self.surfaces[id_].startswith(b" ")

    def _find_takes_space(self) -> bool:
        """Whether decoding takes the space from the first piece."""
        for id_ in self.vocabulary.ordinary.tolist():
            if self._begins_with_space(id_) and self.surfaces[id_].strip():
                return not self._tokenizer.decode([id_]).startswith(" ")
        return False

    def align(self, text: str, ids: NDArray[np.int32]) -> tuple[str, NDArray[np.int64]]:
        """See `Tokenizer.align`; the text is the original one. Encodes it once more."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ends: list[int] = []
        for id_, (_, end) in zip(encoding.ids, encoding.offsets, strict=True):
            ends += [end] * (len(self._spelling(id_)) if self._never[id_] else 1)
        return text, np.array(ends, dtype=np.int64)


class _Style:
    """How the pieces of a `tokenizer.json` write spaces and bytes."""

    def __init__(self, settings: dict[str, Any], name: str) -> None:
        model = settings["model"]
        if model.get("end_of_word_suffix"):
            raise PrepError(
                f"{name}: its pieces mark the end of a word ({model['end_of_word_suffix']!r}), "
                "not its beginning; such a tokenizer is not supported"
            )
        self.words = model["type"] in ("WordPiece", "WordLevel")
        self._prefix: str = model.get("continuing_subword_prefix") or ""
        self._bytes = byte_characters() if is_byte_level(settings) else {}
        self._byte_fallback = bool(model.get("byte_fallback"))

    def is_byte(self, piece: str) -> bool:
        return self._byte_fallback and _BYTE_PIECE.fullmatch(piece) is not None

    def surface(self, piece: str) -> bytes:
        """The bytes of a piece in a text."""
        if self._bytes:
            return bytes(self._bytes[c] for c in piece if c in self._bytes)
        if self._byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        if self.words:
            continues = self._prefix and piece.startswith(self._prefix)
            return (piece[len(self._prefix) :] if continues else " " + piece).encode()
        return piece.replace(WORD_MARK, " ").encode()


def byte_characters() -> dict[str, int]:
    """The byte for which each character of a byte-level piece stands.

    Printable bytes of Latin-1 stand for themselves, the others for U+0100 and on (Radford et
    al. 2019, the code of GPT-2).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def is_byte_level(settings: dict[str, Any]) -> bool:
    """Whether the pieces of a `tokenizer.json` are bytes."""
    return any(part["type"] == "ByteLevel" for part in _parts(settings["pre_tokenizer"]))


def _parts(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The members of a normalizer or pre-tokenizer, in order."""
    if component is None:
        return []
    if component["type"] == "Sequence":
        members = component.get("pretokenizers") or component.get("normalizers") or []
        return [part for member in members for part in _parts(member)]
    return [component]


def _cuts_at_spaces(settings: dict[str, Any]) -> bool:
    """Whether `_SAFE_CUT` cuts a text only where its pre-tokenizer does, with nothing changed."""
    if settings["model"]["type"] != "BPE" or _parts(settings["normalizer"]):
        return False
    if any(not token["special"] for token in settings["added_tokens"]):
        return False  # such a piece is found before the text is cut, and may hold spaces
    match _parts(settings["pre_tokenizer"]):
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return True
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"} as split,
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern in _KNOWN_PATTERNS and not split["invert"]
    return False


def load_library_tokenizer(data: bytes, name: str) -> "tokenizers.Tokenizer":
    """The library's own object.

    Raises:
        MissingPackageError: the library is missing.
        PrepError: `data` is no `tokenizer.json`.
    """
    # Work is spread over processes; threads of each of them would only get in the way.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer as LibraryTokenizer
    except ImportError:
        raise MissingPackageError(
            f"{name}: a tokenizer.json needs the library tokenizers: pip install 'megapt[hf]'"
        ) from None
    try:
        return LibraryTokenizer.from_str(data.decode())
    except Exception as error:  # the library raises nothing more special
        reason = str(error).splitlines()[0] if str(error) else "it cannot be read"
        raise PrepError(f"{name}: not a tokenizer.json of Hugging Face: {reason}") from None
