"""Token ids as text with visible special pieces."""

from __future__ import annotations

from itertools import groupby

from data_prep.tokenizers import Tokenizer
from megapt.data.example import Ints


def readable(tokenizer: Tokenizer, ids: Ints) -> str:
    """Return the text of `ids` with every special piece written out, such as [MASK]."""
    reserved = tokenizer.vocabulary.reserved_table
    parts = []
    for special, run in groupby(ids.tolist(), key=lambda id_: bool(reserved[id_])):
        pieces = list(run)
        if special:
            parts += [f" {tokenizer.piece(id_)}" for id_ in pieces]
        else:
            parts.append(tokenizer.decode(pieces, inside=True))
    return "".join(parts).strip()
