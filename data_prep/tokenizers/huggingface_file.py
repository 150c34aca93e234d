"""A `tokenizer.json` whose pieces can be renamed and to which pieces can be added."""

import json
from typing import Any

from data_prep.errors import PrepError
from data_prep.tokenizers.huggingface import is_byte_level, load_library_tokenizer


class HuggingFaceFile:
    """A `tokenizer.json` to be adopted; see `TokenizerFile`.

    Raises:
        PrepError: `data` is not a `tokenizer.json`, or the ids of its pieces have gaps.
    """

    def __init__(self, data: bytes, name: str) -> None:
        library = load_library_tokenizer(data, name)
        self._settings: dict[str, Any] = json.loads(data)
        self._model: dict[str, Any] = self._settings["model"]
        self._added: list[dict[str, Any]] = self._settings["added_tokens"]
        self.ids: dict[str, int] = library.get_vocab(with_added_tokens=True)
        if sorted(self.ids.values()) != list(range(len(self.ids))):
            raise PrepError(
                f"{name}: its {len(self.ids)} pieces do not have the ids 0 to "
                f"{len(self.ids) - 1}; the library cannot add pieces to such a file"
            )
        byte_level = is_byte_level(self._settings)
        if byte_level:
            self._model["unk_token"] = None  # some files set it, but no byte is unknown
        self.encodes_everything = byte_level or bool(self._model.get("byte_fallback"))

    @property
    def unknown(self) -> str | None:
        """The name of the piece for text that the tokenizer cannot encode; None if it has none."""
        if self._model["type"] == "Unigram":
            id_ = self._model.get("unk_id")
            return None if id_ is None else str(self._model["vocab"][id_][0])
        name = self._model.get("unk_token")
        return name if name in self.ids else None

    def is_special(self, piece: str) -> bool:
        """Return whether an existing piece is not ordinary text."""
        return any(token["content"] == piece for token in self._added)

    def reserve(self, piece: str, name: str) -> None:
        """Rename a piece to `name`, and exclude it from the encoding of texts."""
        if self._model.get("unk_token") == piece:
            self._model["unk_token"] = name
        vocab = self._model["vocab"]
        id_ = self.ids.pop(piece)
        self.ids[name] = id_
        if isinstance(vocab, list):
            if id_ < len(vocab):
                vocab[id_][0] = name
        elif piece in vocab:
            del vocab[piece]
            vocab[name] = id_
        self._added[:] = [token for token in self._added if token["id"] != id_]
        self._added.append(_special(id_, name))

    def append(self, name: str) -> None:
        """Add a reserved piece with the next id."""
        self.ids[name] = len(self.ids)
        self._added.append(_special(self.ids[name], name))

    def pack(self) -> bytes:
        """Return the content of the file, without truncation, padding and post-processing."""
        self._added.sort(key=lambda token: int(token["id"]))
        self._settings.update(truncation=None, padding=None, post_processor=None)
        return (json.dumps(self._settings, ensure_ascii=False, indent=1) + "\n").encode()


def _special(id_: int, name: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": id_, "content": name, **flags, "special": True}
