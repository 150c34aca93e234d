"""The file of a SentencePiece model whose pieces can be renamed and added to."""

from data_prep.tokenizers.model_proto import ModelFile, ModelPiece, PieceType
from data_prep.tokenizers.sentencepiece_model import load_processor


class SentencePieceFile:
    """A SentencePiece model to be adopted; see `TokenizerFile`.

    Raises:
        PrepError: `data` is not a SentencePiece model.
    """

    encodes_everything = False  # but every model has a piece for unknown text

    def __init__(self, data: bytes, name: str) -> None:
        load_processor(data, name)
        self._model = ModelFile.parse(data)
        self._pieces = {piece.name: piece for piece in self._model.pieces}

    @property
    def ids(self) -> dict[str, int]:
        """The id of every piece."""
        return {piece.name: id_ for id_, piece in enumerate(self._model.pieces)}

    @property
    def unknown(self) -> str | None:
        """The name of the piece for text that the tokenizer cannot encode; None if it has none."""
        names = {piece.type: piece.name for piece in self._model.pieces}
        return names.get(PieceType.UNKNOWN)

    def is_special(self, piece: str) -> bool:
        """Return whether an existing piece is not ordinary text."""
        return self._pieces[piece].type not in (PieceType.NORMAL, PieceType.BYTE)

    def reserve(self, piece: str, name: str) -> None:
        """Rename a piece to `name`, and exclude it from the encoding of texts."""
        found = self._pieces.pop(piece)
        found.name = name
        if found.type != PieceType.UNKNOWN:
            found.type = PieceType.CONTROL
        self._pieces[name] = found

    def append(self, name: str) -> None:
        """Add a reserved piece with the next id."""
        self._pieces[name] = ModelPiece(name)
        self._model.pieces.append(self._pieces[name])

    def pack(self) -> bytes:
        """Return the content of the file."""
        return self._model.pack()
