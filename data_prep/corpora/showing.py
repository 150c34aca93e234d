"""Shows documents of a corpus as text with their marks."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_prep.corpora.reading import Corpus, StoredDocument
from data_prep.errors import PrepError
from data_prep.tokenizers import Tokenizer

SENTENCE_SIGN = "‖"
WORD_SIGN = "|"


def with_id(corpus: Corpus, id_: str) -> list[StoredDocument]:
    """Return every document with this id; scans the ids of the whole corpus.

    Raises:
        PrepError: no document has this id, or the corpus keeps no ids.
    """
    if not corpus.manifest.keeps_ids:
        raise PrepError(f"{corpus.folder}: keeps no ids; find a document by its number")
    found = [document for split in corpus.splits.values() for document in split.with_id(id_)]
    if not found:
        raise PrepError(f"{corpus.folder}: no document with the id {id_!r}")
    return found


def sample(corpus: Corpus, count: int, seed: int) -> Iterator[StoredDocument]:
    """Draw documents of a corpus uniformly without replacement, in the order of the draws.

    The draws are hashes of (seed, draw number). They are the same on every machine, and a larger
    sample begins with the smaller one. All documents are drawn if there are no more than `count`.
    """
    sides = list(corpus.splits.values())
    ends = np.cumsum([split.info.documents for split in sides]).tolist()
    drawn: set[int] = set()
    draw = 0
    while len(drawn) < min(count, ends[-1]):
        digest = hashlib.blake2b(f"{seed} {draw}".encode(), digest_size=16).digest()
        place = int.from_bytes(digest, "big") * ends[-1] >> 128
        draw += 1
        if place not in drawn:
            drawn.add(place)
            side = int(np.searchsorted(ends, place, side="right"))
            yield sides[side].document(place - ends[side] + sides[side].info.documents)


def marked_text(document: StoredDocument, tokenizer: Tokenizer) -> str:
    """Return the text with "‖" before each sentence and "|" before each other word."""
    data = document.data
    starts = np.flatnonzero(data.words)
    stops = np.append(starts[1:], len(data.tokens))
    words = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        sign = SENTENCE_SIGN if data.sentences[start] else WORD_SIGN
        words.append(sign + tokenizer.decode(data.tokens[start:stop], inside=start > 0))
    return "".join(words)


def document_summary(corpus: Corpus, document: StoredDocument) -> dict[str, Any]:
    """Return a document as JSON values: its position, counts, text and marked text."""
    data = document.data
    return {
        "document": document.number,
        "split": document.split,
        "id": data.ids[0] if corpus.manifest.keeps_ids else None,
        "corpus": corpus.corpus(document),
        "label": corpus.label(document),
        "tokens": len(data.tokens),
        "words": int(data.words.sum()),
        "sentences": int(data.sentences.sum()),
        "text_bytes": int(data.bytes[0]),
        "text": corpus.tokenizer.decode(data.tokens),
        "marked": marked_text(document, corpus.tokenizer),
    }
