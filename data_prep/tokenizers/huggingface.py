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

# Patterns of the pre-tokenizers of byte-level BPE: GPT-2 (inside ByteLevel), GPT-4 and Llama 3,
# Qwen. All of them start a new part at a space before a letter, unless another space precedes it,
# and at a punctuation mark after a Chinese character.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_KNOWN_PATTERNS = {_PATTERN % "", _PATTERN % "{1,3}"}
_SAFE_CUT = re.compile("(?<=[!-~])(?= [A-Za-z])|(?<=[\u4e00-\u9fa5])(?=[，。、！？；：])")
# The library needs about 90 bytes per character, so a long text is encoded in parts.
_LONG_CHARACTERS = 1 << 20
_BATCH_PARTS = 1 << 12


class HuggingFaceTokenizer(Tokenizer):
    """A tokenizer of the library `tokenizers`: byte-level BPE, WordPiece, Unigram or BPE.

    Args:
        data: content of the `tokenizer.json`.
        name: its name in error messages, usually the path.

    Raises:
        PrepError: `data` is not such a file, its kind is not supported, or it lacks reserved
            pieces.
    """

    kind = "huggingface"
    file_name = "tokenizer.json"

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data, name)
        self._tokenizer = load_library_tokenizer(data, name)
        self._tokenizer.encode_special_tokens = True  # encodes "[MASK]" in a text as ordinary text
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
        reserved = {piece: ids[piece] for piece in sorted(special & ids.keys())}
        self.vocabulary = make_vocabulary(name, reserved, size, holes)
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
        self._spellings: dict[int, list[int]] = {}
        self._forbidden = self.vocabulary.reserved_table.copy()
        self._forbidden[self.vocabulary.unk] = False
        self._cache = WordCache(self._encode_parts) if _cuts_at_spaces(settings) else None

    def is_byte(self, id_: int) -> bool:
        """See `Tokenizer.is_byte`."""
        return self._is_byte[id_]

    def encode(self, text: str) -> NDArray[np.int32]:
        """See `Tokenizer.encode`."""
        size = len(
            text.encode()
        )  # refuses half a surrogate pair, which the library would replace by U+FFFD
        # Parts of Chinese text rarely repeat.
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
        """Replace reserved ids, which some models produce for a text that contains their names.

        The library does not search for special pieces here. But a model may find them if their
        names are among its pieces: Unigram does, and WordPiece does between spaces.
        """
        if not self._forbidden[ids].any():
            return ids
        parts = [self._spelling(id_) if self._forbidden[id_] else [id_] for id_ in ids.tolist()]
        return np.array([id_ for part in parts for id_ in part], dtype=np.int32)

    def _spelling(self, id_: int) -> list[int]:
        if id_ not in self._spellings:
            model = self._tokenizer.model
            tokens = [token for c in self.pieces[id_] for token in model.tokenize(c)]
            known = [token.id for token in tokens if not self._forbidden[token.id]]
            self._spellings[id_] = known or [self.vocabulary.unk]
        return self._spellings[id_]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def _loses_space(self, id_: int) -> bool:
        return self._takes_space and self._begins_with_space(id_)

    def _begins_with_space(self, id_: int) -> bool:
        return self.surfaces[id_].startswith(b" ")

    def _find_takes_space(self) -> bool:
        """Return whether decoding drops the space of the first piece."""
        for id_ in self.vocabulary.ordinary.tolist():
            if self._begins_with_space(id_) and self.surfaces[id_].strip():
                return not self._tokenizer.decode([id_]).startswith(" ")
        return False

    def align(self, text: str, ids: NDArray[np.int32]) -> tuple[str, NDArray[np.int64]]:
        """See `Tokenizer.align`; returns the original text, which it encodes again."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        ends: list[int] = []
        for id_, (_, end) in zip(encoding.ids, encoding.offsets, strict=True):
            ends += [end] * (len(self._spelling(id_)) if self._forbidden[id_] else 1)
        return text, np.array(ends, dtype=np.int64)


class _Style:
    """How the pieces of a `tokenizer.json` represent spaces and bytes."""

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
        """Return the bytes of a piece in a text."""
        if self._bytes:
            return bytes(self._bytes[c] for c in piece if c in self._bytes)
        if self._byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        if self.words:
            continues = self._prefix and piece.startswith(self._prefix)
            return (piece[len(self._prefix) :] if continues else " " + piece).encode()
        return piece.replace(WORD_MARK, " ").encode()


def byte_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level piece represents.

    Printable bytes of Latin-1 are represented by themselves, the others by the characters from
    U+0100 on (Radford et al. 2019, the code of GPT-2).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def is_byte_level(settings: dict[str, Any]) -> bool:
    """Return whether the pieces of a `tokenizer.json` are bytes."""
    return any(part["type"] == "ByteLevel" for part in _parts(settings["pre_tokenizer"]))


def _parts(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the members of a normalizer or pre-tokenizer, in order."""
    if component is None:
        return []
    if component["type"] == "Sequence":
        members = component.get("pretokenizers") or component.get("normalizers") or []
        return [part for member in members for part in _parts(member)]
    return [component]


def _cuts_at_spaces(settings: dict[str, Any]) -> bool:
    """Return whether `_SAFE_CUT` cuts texts only where the pre-tokenizer does, and none changes."""
    if settings["model"]["type"] != "BPE" or _parts(settings["normalizer"]):
        return False
    if any(not token["special"] for token in settings["added_tokens"]):
        return False  # such a piece is found before the text is cut, and may contain spaces
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
    """Return the library's tokenizer object.

    Raises:
        MissingPackageError: the library is not installed.
        PrepError: `data` is not a `tokenizer.json`.
    """
    # The work is already distributed over processes; threads in each of them would slow it down.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer as LibraryTokenizer
    except ImportError:
        raise MissingPackageError(
            f"{name}: a tokenizer.json needs the library tokenizers: pip install 'megapt[hf]'"
        ) from None
    try:
        return LibraryTokenizer.from_str(data.decode())
    except Exception as error:  # the library raises no more specific class
        reason = str(error).splitlines()[0] if str(error) else "it cannot be read"
        raise PrepError(f"{name}: not a tokenizer.json of Hugging Face: {reason}") from None
