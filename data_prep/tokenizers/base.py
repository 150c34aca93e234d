"""The interface of all tokenizers, and the reserved pieces that objectives need."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import PrepError
from data_prep.vocabulary import Vocabulary

# In the order of the ids, from 0, in a tokenizer that is trained here.
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[CLS]", "[SEP]", "[MASK]")
MODE_PIECES = ("[NLU]", "[NLG]", "[S2S]")
INFILLING_PIECES = ("[PRE]", "[SUF]", "[MID]")

WORD_MARK = "▁"  # represents a space in SentencePiece and in Hugging Face's Metaspace

# A tokenizer that decodes all of these texts unchanged counts as lossless.
PROBES: Mapping[str, str] = {
    "English": "The river wasn't wide.",
    "Chinese": "我们去北京，好吗？",
    "emoji": "fine 😀👍🏽",
    "a newline": "one\ntwo\n\nthree",
    "double spaces": "one  two ",
    "a tab": "one\ttwo",
}

Kind = Literal["sentencepiece", "huggingface"]


def sentinel_piece(number: int) -> str:
    """Return the name of sentinel `number`, as in T5."""
    return f"<extra_id_{number}>"


def reserved_pieces(sentinels: int) -> list[str]:
    """Return the names of all reserved pieces, in the order of ids of a tokenizer trained here."""
    named = [*SPECIAL_PIECES, *MODE_PIECES, *INFILLING_PIECES]
    return named + [sentinel_piece(number) for number in range(sentinels)]


class Tokenizer(ABC):
    """Encodes text to ids, decodes ids to text, and describes the ids. It can be pickled.

    The encoding of a text never contains a reserved id: "[MASK]" in a text is encoded letter by
    letter or as ordinary pieces. The one exception is [UNK], for characters that a tokenizer
    cannot encode in any other way.

    Args:
        data: content of the tokenizer's file.
        name: its name in error messages, usually the path.

    Raises:
        PrepError: `data` is not such a tokenizer, or lacks reserved pieces.
    """

    kind: ClassVar[Kind]
    """The library of the tokenizer."""
    file_name: ClassVar[str]
    """Name of the tokenizer's file in a corpus."""
    vocabulary: Vocabulary
    """The ids that objectives need, and the number of ids."""
    pieces: list[str]
    """Name of every piece, by id; "" for an id without a piece."""
    surfaces: list[bytes]
    """UTF-8 bytes of every piece in a text, by id, including a space at its beginning. A piece may
    contain a part of a character."""

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes, str]]:
        return type(self), (self.data, self.name)

    @cached_property
    def sha256(self) -> str:
        """Return the checksum of the tokenizer's file."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def lost(self) -> list[str]:
        """Return the names of the `PROBES` that `decode(encode(text))` changes."""
        return [what for what, text in PROBES.items() if self.decode(self.encode(text)) != text]

    @property
    def lossless(self) -> bool:
        """Whether `decode(encode(text))` returns every text of `PROBES` unchanged."""
        return not self.lost

    def piece(self, id_: int) -> str:
        """Return the name of one piece."""
        return self.pieces[id_]

    @abstractmethod
    def is_byte(self, id_: int) -> bool:
        """Return whether a piece is a single byte, used for characters that have no piece."""

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int32]:
        """Return the ids of a text, int32 [T]; T is 0 for the empty text.

        The array may be read-only.

        Raises:
            UnicodeEncodeError: the text contains half a surrogate pair, which is not a character.
        """

    def decode(self, ids: Iterable[int] | NDArray[np.integer], *, inside: bool = False) -> str:
        """Return the text of ids; reserved ids have no text and are skipped.

        Args:
            ids: ids of consecutive tokens.
            inside: whether the tokens are inside a text. Then a space before the first token is
                kept. At the beginning of a text, the tokenizer may have added that space.
        """
        listed = [int(id_) for id_ in ids]
        text = self._decode(listed)
        return " " + text if inside and listed and self._loses_space(listed[0]) else text

    @abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """Return the text that the library decodes from ids."""

    @abstractmethod
    def _loses_space(self, id_: int) -> bool:
        """Return whether `_decode` drops the space of this piece if it is the first one."""

    @abstractmethod
    def align(self, text: str, ids: NDArray[np.int32]) -> tuple[str, NDArray[np.int64]]:
        """Find where tokens end in a text that differs from their joined surfaces.

        Returns:
            The text as the tokens represent it, and the character position after each token,
            int64 [T].
        """


def make_vocabulary(
    name: str, ids: Mapping[str, int], size: int, other_reserved: Iterable[int]
) -> Vocabulary:
    """Return the vocabulary of a tokenizer.

    Args:
        name: name of the tokenizer in error messages.
        ids: by name, the ids of [UNK] and of all pieces that the encoding of a text never contains.
        size: number of ids.
        other_reserved: ids without a piece.

    Raises:
        PrepError: a reserved piece is missing.
    """
    sentinels: list[int] = []
    while (piece := sentinel_piece(len(sentinels))) in ids:
        sentinels.append(ids[piece])
    if missing := [piece for piece in reserved_pieces(1) if piece not in ids]:
        raise PrepError(
            f"{name}: the tokenizer lacks the control pieces {', '.join(missing)}; "
            "`megapt-prep tokenizer --from` adds them"
        )
    return Vocabulary(
        size=size,
        **{piece.strip("[]").lower(): ids[piece] for piece in SPECIAL_PIECES},
        modes={piece.strip("[]"): ids[piece] for piece in MODE_PIECES},
        infilling={piece.strip("[]"): ids[piece] for piece in INFILLING_PIECES},
        sentinels=sentinels,
        reserved=sorted({*ids.values(), *other_reserved}),
    )
