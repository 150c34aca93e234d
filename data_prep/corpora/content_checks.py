"""Checks whether the arrays of a block are consistent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.manifest import Manifest
from data_prep.tokenizers import Tokenizer
from data_prep.vocabulary import Vocabulary

# SentencePiece writes a space as U+2581, so U+2581 in a text decodes to a space, two bytes shorter.
_SPACE_SIGN_LOSS = 2


@dataclass(frozen=True)
class DecodedBlock:
    """A block as it was read."""

    arrays: dict[str, NDArray[Any]]
    """The arrays that the block has, by the names of `BlockData`; marks are packed bits."""
    ids: list[str] | None
    """The ids of its documents, or None."""


def content_faults(block: DecodedBlock, manifest: Manifest, last: int) -> Iterator[str]:
    """Yield what is wrong with the values of a block.

    Args:
        block: the block.
        manifest: the manifest of its corpus.
        last: number of the last document before the block, or -1.
    """
    arrays = block.arrays
    lens, numbers = arrays["lens"].astype(np.int64), arrays["documents"]
    if (np.diff(numbers, prepend=last) <= 0).any():
        yield "document numbers do not increase"
    if numbers.min() < 0 or numbers.max() >= manifest.source_documents:
        yield f"document numbers are not all in 0 to {manifest.source_documents - 1}"
    if not arrays["bytes"].all():
        yield f"document {_first(numbers, arrays['bytes'] == 0)} has no byte of text"
    for name, least, names in (("labels", -1, manifest.labels), ("corpora", 0, manifest.corpora)):
        if name in arrays:
            wrong = (arrays[name] < least) | (arrays[name] >= len(names))
            if wrong.any():
                number = _first(numbers, wrong)
                yield f"{name} of document {number} is not in {least} to {len(names) - 1}"
    yield from _mark_faults(arrays)
    tokens = arrays["tokens"]
    if lens.sum() != len(tokens):
        yield f"lens add up to {lens.sum()}, but there are {len(tokens)} tokens"
        return
    if not lens.all():
        yield f"document {_first(numbers, lens == 0)} has no tokens"
        return
    owner = np.cumsum(lens)
    if tokens.max() >= manifest.vocabulary.size:
        number = _owner(numbers, owner, tokens >= manifest.vocabulary.size)
        yield f"a token of document {number} is not below {manifest.vocabulary.size}"
    elif (reserved := _never_in_text(manifest.vocabulary)[tokens]).any():
        yield f"document {_owner(numbers, owner, reserved)} holds a reserved token"
    starts = owner - lens
    for name in ("words", "sentences"):
        unmarked = (arrays[name][starts >> 3] << (starts & 7)) & 0x80 == 0
        if unmarked.any():
            yield f"the first token of document {_first(numbers, unmarked)} is not in {name}"


def _mark_faults(arrays: dict[str, NDArray[Any]]) -> Iterator[str]:
    words, sentences = arrays["words"], arrays["sentences"]
    if (sentences & ~words).any():
        yield "a sentence starts where no word starts"
    unused = np.uint8(0xFF >> (len(arrays["tokens"]) % 8 or 8))
    for name in ("words", "sentences"):
        if arrays[name][-1] & unused:
            yield f"the unused bits of {name} are not zero"


def text_faults(block: DecodedBlock, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the documents whose decoded text has another length than was recorded.

    The tokenizer must be lossless. Even then U+2581 may decode to a space.
    """
    arrays = block.arrays
    if arrays["lens"].sum(dtype=np.int64) != len(arrays["tokens"]):
        return
    ends = np.cumsum(arrays["lens"], dtype=np.int64).tolist()
    rows = zip([0, *ends[:-1]], ends, arrays["bytes"], arrays["documents"], strict=True)
    for start, end, recorded, number in rows:
        text = tokenizer.decode(arrays["tokens"][start:end])
        lost = int(recorded) - len(text.encode())
        if lost < 0 or lost % _SPACE_SIGN_LOSS or lost > _SPACE_SIGN_LOSS * text.count(" "):
            yield (
                f"document {number} decodes to {len(text.encode())} bytes of text, "
                f"{recorded} are recorded"
            )


def _never_in_text(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Return which ids no text yields, bool [vocabulary]; some tokenizers yield [UNK]."""
    table: NDArray[np.bool_] = vocabulary.reserved_table.copy()
    table[vocabulary.unk] = False
    return table


def _first(numbers: NDArray[np.int64], wrong: NDArray[np.bool_]) -> int:
    """Return the number of the first document that is wrong."""
    return int(numbers[np.argmax(wrong)])


def _owner(numbers: NDArray[np.int64], ends: NDArray[np.int64], wrong: NDArray[np.bool_]) -> int:
    """Return the number of the document that holds the first wrong token."""
    return int(numbers[np.searchsorted(ends, np.argmax(wrong), side="right")])
