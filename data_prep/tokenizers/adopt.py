"""Adopt an existing tokenizer: add the reserved pieces that it lacks.

There are three cases for each reserved piece. The tokenizer already has it under our name. Or it
has a special piece under another name, which is renamed and keeps its id. Or the piece is appended
with a new id after the last one. The ids of ordinary pieces never change. Every reserved piece has
its own id, because an id can have only one name. For example, GPT-2 uses <|endoftext|> for both
[BOS] and [EOS]: here [EOS] gets its id, and [BOS] is appended.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from data_prep.errors import PrepError
from data_prep.files import write_atomically
from data_prep.tokenizers.base import Tokenizer, reserved_pieces
from data_prep.tokenizers.huggingface import HuggingFaceTokenizer
from data_prep.tokenizers.huggingface_file import HuggingFaceFile
from data_prep.tokenizers.loading import is_json, read_tokenizer_file
from data_prep.tokenizers.sentencepiece_file import SentencePieceFile
from data_prep.tokenizers.sentencepiece_model import SentencePieceTokenizer

# Names of our pieces in other tokenizers; the first one that exists is used. [UNK] is not in the
# list, because both kinds of file name their piece for unknown text.
ALIASES: Mapping[str, tuple[str, ...]] = {
    "[PAD]": ("<pad>", "<PAD>", "<|pad|>", "<|padding|>"),
    "[BOS]": ("<s>", "<bos>", "<BOS>", "<|begin_of_text|>", "<|startoftext|>", "<|bos|>"),
    "[EOS]": ("</s>", "<eos>", "<EOS>", "<|end_of_text|>", "<|endoftext|>", "<|eos|>"),
    "[CLS]": ("<cls>", "<CLS>", "<|cls|>"),
    "[SEP]": ("<sep>", "<SEP>", "<|sep|>"),
    "[MASK]": ("<mask>", "<MASK>", "<|mask|>"),
    "[PRE]": ("<fim_prefix>", "<|fim_prefix|>", "<fim-prefix>"),
    "[SUF]": ("<fim_suffix>", "<|fim_suffix|>", "<fim-suffix>"),
    "[MID]": ("<fim_middle>", "<|fim_middle|>", "<fim-middle>"),
}


class TokenizerFile(Protocol):
    """A tokenizer's file whose pieces can be renamed and to which pieces can be added."""

    @property
    def encodes_everything(self) -> bool:
        """Whether the tokenizer encodes every text, so that it needs no piece for unknown text."""

    @property
    def unknown(self) -> str | None:
        """The name of the piece for text that the tokenizer cannot encode; None if it has none."""

    @property
    def ids(self) -> Mapping[str, int]:
        """The id of every piece."""

    def is_special(self, piece: str) -> bool:
        """Return whether an existing piece is not ordinary text."""

    def reserve(self, piece: str, name: str) -> None:
        """Rename a piece to `name`, and exclude it from the encoding of texts."""

    def append(self, name: str) -> None:
        """Add a reserved piece with the next id."""

    def pack(self) -> bytes:
        """Return the content of the file."""


def adopt_tokenizer(
    path: Path, output: Path, special: Mapping[str, str] | None = None, sentinels: int = 100
) -> Tokenizer:
    """Give a tokenizer the reserved pieces and write it to the folder `output`.

    Args:
        path: a SentencePiece model, a `tokenizer.json`, or a folder with one of them.
        output: folder for the tokenizer.model or tokenizer.json; created if missing.
        special: the pieces of the tokenizer to use for our pieces, for example
            {"MASK": "<mask>"}; for other pieces, the names in `ALIASES` are searched.
        sentinels: number of <extra_id_N> pieces.

    Returns:
        The tokenizer; its `lost` lists the kinds of text that it does not preserve.

    Raises:
        PrepError: the file is not a tokenizer, a piece cannot be used, or there is no [UNK].
        OSError: the file cannot be written.
    """
    source, data = read_tokenizer_file(path)
    name = str(source)
    file: TokenizerFile
    file = HuggingFaceFile(data, name) if is_json(data) else SentencePieceFile(data, name)
    before = dict(file.ids)
    renamed = _reserve(file, _named(special or {}, sentinels, name), sentinels, name)
    kind = HuggingFaceTokenizer if is_json(data) else SentencePieceTokenizer
    target = output / kind.file_name
    adopted: Tokenizer = kind(file.pack(), str(target))
    for piece, id_ in before.items():
        if adopted.pieces[id_] != renamed.get(piece, piece):
            raise PrepError(f"{name}: the id {id_} of {piece!r} cannot be kept")
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(target, adopted.data)
    return adopted


def _named(special: Mapping[str, str], sentinels: int, name: str) -> dict[str, str]:
    """Return `special` with the full names of our pieces as keys."""
    full = {piece.strip("[]<>"): piece for piece in reserved_pieces(sentinels)}
    found: dict[str, str] = {}
    for key, piece in special.items():
        ours = full.get(key.strip("[]<>"))
        if ours is None:
            raise PrepError(
                f"--special {key}={piece}: no reserved piece is called {key}; "
                f"there are {', '.join(list(full)[:13])} and extra_id_N"
            )
        if piece in found.values():
            other = next(name for name, value in found.items() if value == piece)
            raise PrepError(
                f"{name}: {piece!r} cannot be both {other} and {ours}, which need different ids; "
                "omit one of them, and it is appended"
            )
        found[ours] = piece
    return found


def _reserve(
    file: TokenizerFile, special: Mapping[str, str], sentinels: int, name: str
) -> dict[str, str]:
    """Reserve or append every piece; return the new name of each renamed piece by its old name."""
    ours = reserved_pieces(sentinels)
    wanted = dict(special)
    if (unknown := file.unknown) is not None:
        if wanted.setdefault("[UNK]", unknown) != unknown:
            raise PrepError(
                f"{name}: {wanted['[UNK]']!r} cannot be [UNK], which is {unknown!r} here"
            )
    elif not file.encodes_everything:
        raise PrepError(
            f"{name}: has no piece for unknown characters, which would be lost silently; "
            "[UNK] cannot be appended"
        )
    for piece, old in wanted.items():
        if old not in file.ids:
            raise PrepError(f"{name}: has no piece {old!r} that could be {piece}")
        if old != piece and old in ours:
            raise PrepError(f"{name}: {old!r} is a reserved piece itself and cannot be {piece}")
        if old != piece and piece in file.ids:
            raise PrepError(f"{name}: has a piece {piece} already; {old!r} cannot be it too")
    for piece in ours:
        if piece in file.ids:
            wanted.setdefault(piece, piece)
        for alias in ALIASES.get(piece, ()):
            if alias in file.ids and file.is_special(alias) and alias not in wanted.values():
                wanted.setdefault(piece, alias)
    for piece, old in wanted.items():
        if old != unknown and not file.is_special(old):
            raise PrepError(
                f"{name}: {old!r} is a piece of ordinary text and cannot be reserved as {piece}"
            )
    for piece in ours:
        if piece in wanted:
            file.reserve(wanted[piece], piece)
        else:
            file.append(piece)
    return {old: piece for piece, old in wanted.items()}
