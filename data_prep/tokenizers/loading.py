"""Load a tokenizer of either kind by its path."""

import re
from pathlib import Path

from data_prep.errors import PrepError
from data_prep.tokenizers.base import Tokenizer
from data_prep.tokenizers.huggingface import HuggingFaceTokenizer
from data_prep.tokenizers.sentencepiece_model import SentencePieceTokenizer

_JSON_OBJECT = re.compile(rb'\s*\{\s*["}]')  # a SentencePiece model begins with a newline
TOKENIZER_NAMES = (SentencePieceTokenizer.file_name, HuggingFaceTokenizer.file_name)


def find_tokenizer_file(path: str | Path) -> Path:
    """Return the file of a tokenizer: `path` itself, or the file in the folder `path`.

    Raises:
        PrepError: the folder contains no tokenizer, or more than one.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    files = [path / name for name in TOKENIZER_NAMES if (path / name).is_file()]
    if len(files) != 1:
        found = "more than one" if files else "no"
        raise PrepError(
            f"{path}: is a folder with {found} tokenizer in it; "
            f"give the path of a {' or a '.join(TOKENIZER_NAMES)}"
        )
    return files[0]


def read_tokenizer_file(path: str | Path) -> tuple[Path, bytes]:
    """Return the file of a tokenizer and its content.

    Raises:
        PrepError: there is no such file.
    """
    file = find_tokenizer_file(path)
    try:
        return file, file.read_bytes()
    except FileNotFoundError:
        raise PrepError(
            f"{path}: no such file; `megapt-prep tokenizer` writes a tokenizer.model"
        ) from None


def is_json(data: bytes) -> bool:
    """Return whether the content of a tokenizer's file is a JSON object."""
    return _JSON_OBJECT.match(data) is not None


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a tokenizer.

    Args:
        path: a SentencePiece model, a `tokenizer.json`, or a folder with one of them.

    Raises:
        PrepError: the file does not exist, is not a tokenizer, or lacks reserved pieces.
    """
    file, data = read_tokenizer_file(path)
    if is_json(data):
        return HuggingFaceTokenizer(data, str(file))
    return SentencePieceTokenizer(data, str(file))
