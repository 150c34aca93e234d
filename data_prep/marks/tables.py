"""A table over the pieces of a tokenizer: what a piece alone decides about word starts."""

import re
import unicodedata

import numpy as np
from numpy.typing import NDArray

from data_prep.marks.sentences import CJK
from data_prep.tokenizers import WORD_MARK, Tokenizer

STARTS, ENDS, CONTINUES = 1, 2, 4
LENGTH_SHIFT = 3

_CJK = re.compile(f"[{CJK}]")


def piece_table(tokenizer: Tokenizer) -> NDArray[np.uint32]:
    """Return an entry for each piece of a tokenizer, uint32 [V].

    The low bits are STARTS (a word starts with the piece), ENDS (a word starts after it) and
    CONTINUES (it begins with a later byte of a character). The bits from `LENGTH_SHIFT` up are
    its length: the number of characters that begin in it.
    """
    table: list[int] = []
    for id_, surface in enumerate(tokenizer.surfaces):
        flags = _lone_byte(surface[0]) if tokenizer.is_byte(id_) else _flags(surface)
        length = sum(byte & 0xC0 != 0x80 for byte in surface)
        table.append(flags | length << LENGTH_SHIFT)
    return np.array(table, dtype=np.uint32)


def _stands_alone(character: str) -> bool:
    """Return whether a word starts at this character and another one after it."""
    if character in "\n\t" or _CJK.match(character):
        return True
    return character != WORD_MARK and unicodedata.category(character)[0] in "PS"


def _lone_byte(byte: int) -> int:
    """Return the flags of a byte piece, used for characters that have no piece."""
    if byte < 0x80:
        return 0 if chr(byte).isalnum() else STARTS | ENDS
    return CONTINUES if byte < 0xC0 else STARTS


def _flags(surface: bytes) -> int:
    """Return the flags of a piece of text, which may begin or end inside a character."""
    if not surface:
        return 0
    text = surface.decode(errors="replace")
    begins, ends = _cut_characters(surface)
    found = 0
    if begins:
        found |= CONTINUES
    elif text[0] == " " or ends == len(surface) or _stands_alone(text[0]):
        found |= STARTS
    if not ends and not (begins and len(text) == 1) and _stands_alone(text[-1]):
        found |= ENDS
    return found


def _cut_characters(surface: bytes) -> tuple[int, int]:
    """Return the number of bytes of a character cut by the start of a piece, and by its end."""
    begins = next((i for i, byte in enumerate(surface) if byte & 0xC0 != 0x80), len(surface))
    for size in range(1, min(4, len(surface) - begins + 1)):
        lead = surface[-size]
        if lead & 0xC0 != 0x80:
            whole = 1 + (lead >= 0xC0) + (lead >= 0xE0) + (lead >= 0xF0)
            return begins, size if size < whole else 0
    return begins, 0
