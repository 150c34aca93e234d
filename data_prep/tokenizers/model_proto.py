"""The file of a SentencePiece model, read and changed field by field.

The file is a protocol buffer (sentencepiece_model.proto). The `protobuf` package could read it,
but the message module of SentencePiece requires the newest version of that package, which the few
fields needed here do not justify. All other fields are kept unchanged, byte for byte.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_BPE = 2  # TrainerSpec.ModelType
# Fields of TrainerSpec with the names of special pieces.
_UNK_PIECE, _BOS_PIECE, _EOS_PIECE, _PAD_PIECE = 45, 46, 47, 48
_NAMED = {"[UNK]": _UNK_PIECE, "[BOS]": _BOS_PIECE, "[EOS]": _EOS_PIECE, "[PAD]": _PAD_PIECE}


class PieceType(IntEnum):
    """Types of pieces: SentencePiece.Type of the protocol buffer."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass
class ModelPiece:
    """A piece: its name, its score and its type."""

    name: str
    score: float = 0.0
    type: PieceType = PieceType.CONTROL

    def pack(self) -> bytes:
        """Return the piece as a protocol buffer message."""
        name = self.name.encode()
        score = struct.pack("<f", self.score)
        return b"".join(
            [
                _field(1, _LENGTH) + _varint(len(name)) + name,
                _field(2, _FIXED32) + score,
                _field(3, _VARINT) + _varint(self.type),
            ]
        )


@dataclass
class ModelFile:
    """The parts of a model that are read or changed."""

    is_bpe: bool
    """Whether the model is BPE."""
    byte_fallback: bool
    """Whether characters without a piece are encoded as bytes."""
    identity: bool
    """Whether the model leaves text unchanged: no normalization, all spaces are kept, and the space
    of a piece is at its beginning."""
    _messages: list[bytes]
    _trainer: bytes
    _rest: bytes

    @cached_property
    def pieces(self) -> list[ModelPiece]:
        """Return all pieces, by id; parsed on first use, because most callers do not need them."""
        return [_piece(message) for message in self._messages]

    @classmethod
    def parse(cls, data: bytes) -> "ModelFile":
        """Read a model that SentencePiece itself has accepted.

        Raises:
            ValueError: `data` is not a protocol buffer.
        """
        messages: list[bytes] = []
        trainer = b""
        normalizer: dict[int, bytes | int] = {}
        rest: list[bytes] = []
        for number, value, raw in _fields(data):
            if number == _PIECE and isinstance(value, bytes):
                messages.append(value)
            elif number == _TRAINER and isinstance(value, bytes):
                trainer += value  # the format merges repeated messages of one field
            else:
                rest.append(raw)
                if number == _NORMALIZER and isinstance(value, bytes):
                    normalizer.update({n: v for n, v, _ in _fields(value)})
        settings = {n: v for n, v, _ in _fields(trainer)}
        return cls(
            is_bpe=settings.get(3, 1) == _BPE,
            byte_fallback=bool(settings.get(35, False)),
            identity=not normalizer.get(2)  # precompiled_charsmap
            and not normalizer.get(4, True)  # remove_extra_whitespaces
            and bool(normalizer.get(5, True))  # escape_whitespaces
            and not settings.get(24, False),  # treat_whitespace_as_suffix
            _messages=messages,
            _trainer=trainer,
            _rest=b"".join(rest),
        )

    def pack(self) -> bytes:
        """Return the content of the file, with the special names of TrainerSpec from `pieces`."""
        names = {piece.name for piece in self.pieces}
        named = {number: name for name, number in _NAMED.items() if name in names}
        trainer = b"".join(raw for n, _, raw in _fields(self._trainer) if n not in named)
        for number, name in sorted(named.items()):
            trainer += _field(number, _LENGTH) + _varint(len(name)) + name.encode()
        packed = [piece.pack() for piece in self.pieces]
        parts = [_field(_PIECE, _LENGTH) + _varint(len(piece)) + piece for piece in packed]
        parts.append(_field(_TRAINER, _LENGTH) + _varint(len(trainer)) + trainer)
        return b"".join(parts) + self._rest


def _piece(message: bytes) -> ModelPiece:
    piece = ModelPiece("", type=PieceType.NORMAL)
    for number, value, _ in _fields(message):
        if number == 1 and isinstance(value, bytes):
            piece.name = value.decode()
        elif number == 2 and isinstance(value, bytes):
            piece.score = struct.unpack("<f", value)[0]
        elif number == 3 and isinstance(value, int):
            piece.type = PieceType(value)
    return piece


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int, bytes]]:
    """Yield the number, the value and all bytes of each field of a message."""
    place = 0
    while place < len(data):
        begin = place
        key, place = _read_varint(data, place)
        wire = key & 7
        value: bytes | int
        if wire == _VARINT:
            value, place = _read_varint(data, place)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
            value, place = data[place : place + size], place + size
        elif wire == _LENGTH:
            size, place = _read_varint(data, place)
            value, place = data[place : place + size], place + size
        else:
            raise ValueError(f"wire type {wire}")
        if place > len(data):
            raise ValueError("the message ends inside a field")
        yield key >> 3, value, data[begin:place]


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("the message ends inside a number")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)
