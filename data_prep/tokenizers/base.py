"""What every tokenizer offers, and the reserved pieces that objectives need of it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from data_prep.errors import PrepError
from data_prep.vocabulary import Vocabulary

# The order is that of the ids, from 0, in a tokenizer that is trained here.
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[BOS]", "[EOS]", "[CLS]", "[SEP]", "[MASK]")
MODE_PIECES = ("[NLU]", "[NLG]", "[S2S]")
INFILLING_PIECES = ("[PRE]", "[SUF]", "[MID]")

WORD_MARK = "▁"  # SentencePiece, and Metaspace of Hugging Face, write a space as this

# What a tokenizer must give back unchanged to be called lossless.
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
    """The name of sentinel `number`, as T5 has it."""
    return f"<extra_id_{number}>"


def reserved_pieces(sentinels: int) -> list[str]:
    """The names of all reserved pieces, in the order of ids of a tokenizer trained here."""
    named = [*SPECIAL_PIECES, *MODE_PIECES, *INFILLING_PIECES]
    return named + [sentinel_piece(number) for number in range(sentinels)]


class Tokenizer(ABC):
    """Text to ids and back, and what the ids mean. The object can be pickled.

    Text never yields a reserved id: "[MASK]" in a text is encoded letter by letter or as
    ordinary pieces. The one exception is [UNK], where a tokenizer knows no other way to write
    a character.

    Args:
        data: content of the tokenizer's file.
        name: what error messages call it, usually its path.

    Attributes:
        kind: the library behind it.
        file_name: what its file is called in a corpus.
        vocabulary: the ids that objectives need.
        pieces: the name of every piece, by id; "" for an id without a piece.
        surfaces: the UTF-8 bytes that every piece stands for in a text, by id, the space at
            its beginning included. A piece may hold a part of a character.

    Raises:
        PrepError: `data` is no such tokenizer, or lacks reserved pieces.
    """

    kind: ClassVar[Kind]
    file_name: ClassVar[str]
    vocabulary: Vocabulary
    pieces: list[str]
    surfaces: list[bytes]

    def __init__(self, data: bytes, name: str) -> None:
        self.data = data
        self.name = name

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes, str]]:
        return type(self), (self.data, self.name)

    @cached_property
    def sha256(self) -> str:
        """Checksum of the tokenizer's file."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def lost(self) -> list[str]:
        """Which of `PROBES` do not come back from `decode(encode(text))` as they were."""
        return [what for what, text in PROBES.items() if self.decode(self.encode(text)) != text]

    @property
    def lossless(self) -> bool:
        """Whether text comes back as it was, as far as `PROBES` can tell."""
        return not self.lost

    def piece(self, id_: int) -> str:
        """The name of one piece."""
        return self.pieces[id_]

    @abstractmethod
    def is_byte(self, id_: int) -> bool:
        """Whether a piece is a single byte, used where a character has no piece of its own."""

    @abstractmethod
    def encode(self, text: str) -> NDArray[np.int32]:
        """The ids of a text, int32 [T], read-only or not; T is 0 for the empty text.

        Raises:
            UnicodeEncodeError: the text holds half a surrogate pair, which is no character.
        """

    def decode(self, ids: Iterable[int] | NDArray[np.integer], *, inside: bool = False) -> str:
        """The text of ids; reserved ids have none and are left out.

        Args:
            ids: ids of consecutive tokens.
            inside: the tokens stand inside a text, so that a space before the first of them
                is a part of it. At the beginning of a text it may be the tokenizer's own.
        """
        listed = [int(id_) for id_ in ids]
        text = self._decode(listed)
        return " " + text if inside and listed and self._loses_space(listed[0]) else text

    @abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """The text that the library makes of ids."""

    @abstractmethod
    def _loses_space(self, id_: int) -> bool:
        """Whether `_decode` takes a space from this piece when it comes first."""

    @abstractmethod
    def align(self, text: str, ids: NDArray[np.int32]) -> tuple[str, NDArray[np.int64]]:
        """Find where tokens end in a text that their surfaces do not add up to.

        Returns:
            The text as the tokens have it, and the character after each token, int64 [T].
        """


def make_vocabulary(
    name: str, ids: Mapping[str, int], size: int, other_reserved: Iterable[int]
) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Args:
        name: what error messages call the tokenizer.
        ids: the id of each piece that text never yields, and of [UNK], by the piece's name.
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
