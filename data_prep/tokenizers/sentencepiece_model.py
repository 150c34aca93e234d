"""SentencePiece models as tokenizers."""

from collections.abc import Iterator, Sequence

import numpy as np
import sentencepiece as spm
from numpy.typing import NDArray

from data_prep.errors import PrepError
from data_prep.tokenizers.base import WORD_MARK, Tokenizer, make_vocabulary
from data_prep.tokenizers.model_proto import ModelFile
from data_prep.tokenizers.word_cache import Neighbors, WordCache, code_points

# SentencePiece needs about 30 bytes per character, and BPE needs more than linear time, so a longer
# text is encoded in parts.
PART_CHARACTERS = 1 << 20
_CJK_START = 0x2E80  # the first of the blocks of Chinese, Japanese and Korean characters


def cut_text(text: str, limit: int) -> Iterator[str]:
    """Cut a text into parts of at most `limit` characters, whose concatenation is the text.

    A cut is before a newline or a space, if there is one in the second half of the part.
    """
    start = 0
    while len(text) - start > limit:
        end = start + limit
        middle = start + limit // 2 + 1
        cut = max(text.rfind("\n", middle, end), text.rfind(" ", middle, end))
        if cut < 0:
            cut = end
        yield text[start:cut]
        start = cut
    yield text[start:]


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model.

    With a model that is trained here, `decode(encode(text)) == text` for every text, with one
    exception: U+2581 ("▁") is decoded as a space.

    Args:
        data: the serialized model.
        name: its name in error messages, usually the path.

    Raises:
        PrepError: `data` is not a SentencePiece model, or lacks reserved pieces.
    """

    kind = "sentencepiece"
    file_name = "tokenizer.model"

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data, name)
        self._processor = load_processor(data, name)
        processor = self._processor
        size: int = processor.get_piece_size()
        ids = range(size)
        self.pieces = [processor.id_to_piece(id_) for id_ in ids]
        self.surfaces = [self._surface(id_) for id_ in ids]
        reserved = {self.pieces[id_]: id_ for id_ in ids if not self._is_text(id_)}
        self.vocabulary = make_vocabulary(name, reserved, size, ())
        self._anchor = self._find_anchor()
        # The space that the model adds before every text, if the ids of the anchor show one.
        self._begin = " " if self._anchor and len(self._anchor) > 1 else ""
        self._cache = self._make_cache()

    @property
    def is_cached(self) -> bool:
        """Whether repeated parts of texts are looked up instead of encoded again."""
        return self._cache is not None

    def _is_text(self, id_: int) -> bool:
        processor = self._processor
        return not (
            processor.is_control(id_) or processor.is_unknown(id_) or processor.is_unused(id_)
        )

    def _surface(self, id_: int) -> bytes:
        piece = self.pieces[id_]
        if self.is_byte(id_):  # "<0xE4>"
            return bytes([int(piece[3:5], 16)])
        return piece.replace(WORD_MARK, " ").encode()

    def is_byte(self, id_: int) -> bool:
        """See `Tokenizer.is_byte`."""
        found: bool = self._processor.is_byte(id_)
        return found

    def encode(self, text: str) -> NDArray[np.int32]:
        """See `Tokenizer.encode`."""
        if self._anchor is None or len(text) <= PART_CHARACTERS:
            return self._encode_part(text)
        first, *others = cut_text(text, PART_CHARACTERS)
        parts = [self._encode_part(part, inside=True) for part in others]
        return np.concatenate([self._encode_part(first), *parts])

    def _encode_part(self, text: str, *, inside: bool = False) -> NDArray[np.int32]:
        """Return the ids of a text, or of a part of one that is not its beginning."""
        whole = self._encode_inside if inside else self._encode_whole
        if self._cache is None or not text:
            return whole(text)
        # SentencePiece treats "▁" in a text as a space, and adds a space before every text.
        spaced = ("" if inside else self._begin) + text.replace(WORD_MARK, " ")
        codes = code_points(spaced)
        if 2 * np.count_nonzero(codes >= _CJK_START) > len(spaced):
            # The parts of Chinese text rarely repeat, and few of its characters merge, so
            # SentencePiece itself is faster than the cache.
            return whole(text)
        cache, neighbors = self._cache
        return cache.encode(neighbors.cut(spaced, codes))

    def _encode_whole(self, text: str) -> NDArray[np.int32]:
        ids: NDArray[np.int32] = self._processor.encode(text, return_type="numpy")
        return ids

    def _encode_inside(self, text: str) -> NDArray[np.int32]:
        """Return the ids of a part of a text that is not its beginning."""
        assert self._anchor is not None
        return self._encode_whole("\n" + text)[len(self._anchor) :]

    def _find_anchor(self) -> list[int] | None:
        """Return the ids of a newline, if no piece joins it with other characters, else None.

        Text after a newline is encoded like text inside a document, without the space that the
        model adds before every text. Some models drop newlines; their texts are encoded whole.
        """
        ids: list[int] = self._processor.encode("\n")
        alone = not any("\n" in piece and piece != "\n" for piece in self.pieces)
        return ids if alone and ids and self.surfaces[ids[-1]] == b"\n" else None

    def _make_cache(self) -> tuple[WordCache, Neighbors] | None:
        """Return a cache for BPE models with which the ids are exactly those of the model.

        There is none for unigram models. They sum scores along the whole text in float32. So the
        rounding, and the choice between pieces with almost equal scores, depends on the text
        before a word.
        """
        model = ModelFile.parse(self.data)
        if not (model.is_bpe and model.identity and model.byte_fallback and self._anchor):
            return None
        texts = [self.pieces[id_] for id_ in self.vocabulary.ordinary if not self.is_byte(id_)]
        neighbors = Neighbors(piece.replace(WORD_MARK, " ") for piece in texts)
        return WordCache(self._encode_parts), neighbors

    def _encode_parts(self, parts: Sequence[str]) -> list[NDArray[np.int32]]:
        return [self._encode_inside(part) for part in parts]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._processor.decode(ids)
        return text

    def _loses_space(self, id_: int) -> bool:
        return self.pieces[id_].startswith(WORD_MARK)

    def align(self, text: str, ids: NDArray[np.int32]) -> tuple[str, NDArray[np.int64]]:
        """See `Tokenizer.align`; returns the text as the model normalized it."""
        # A character that is encoded as bytes counts at its first byte only.
        surfaces = [self.surfaces[id_] for id_ in ids.tolist()]
        shown = ["" if b"\x80" <= s < b"\xc0" else s.decode(errors="replace") for s in surfaces]
        return "".join(shown), np.cumsum([len(surface) for surface in shown])


def load_processor(data: bytes, name: str) -> spm.SentencePieceProcessor:
    """Return SentencePiece's processor of a model.

    Raises:
        PrepError: `data` is not a SentencePiece model.
    """
    processor = spm.SentencePieceProcessor()
    try:
        processor.load_from_serialized_proto(data)
        if processor.get_piece_size() > 0:
            return processor
    except (RuntimeError, ValueError):
        pass
    raise PrepError(
        f"{name}: not a SentencePiece model; `megapt-prep tokenizer` trains one"
    ) from None
