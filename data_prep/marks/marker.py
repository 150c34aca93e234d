"""Word starts and sentence starts of tokens.

Objectives that mask whole words or pair sentences need them at training time, when the text is
no longer available. So they are found once, here, and stored as one bit each per token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from data_prep.marks.boundaries import find_boundaries
from data_prep.marks.tables import CONTINUES, ENDS, LENGTH_SHIFT, STARTS, piece_table
from data_prep.marks.words import WordRule, chinese_words, load_segmenter
from data_prep.tokenizers import Tokenizer

Places = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Marker:
    """Find the marks of tokenized texts with a table over the pieces of one tokenizer.

    Words: a piece starts a word if one of these holds:

    - it begins with a space, a CJK character, a punctuation mark or symbol, a newline or a tab;
    - it begins with the first bytes of a character beyond ASCII, but not with all of them;
    - the piece before it ends in such a mark or a CJK character.

    Other pieces, and the further bytes of a character, continue the word. With `words="jieba"`,
    a segmenter finds the words inside a run of Chinese characters.

    Sentences: boundaries are found in the text and mapped to the tokens by counting characters.
    A sentence start is always also a word start.

    Args:
        tokenizer: the tokenizer of the ids to mark.
        words: how Chinese words are found: "pieces" for the rule above, or "jieba".

    Raises:
        PrepError: the segmenter is not installed.
    """

    def __init__(self, tokenizer: Tokenizer, words: WordRule = "pieces") -> None:
        self._tokenizer = tokenizer
        self._table = piece_table(tokenizer)
        self._segment = load_segmenter() if words == "jieba" else None

    def mark(
        self, texts: Sequence[str], tokens: NDArray[np.int32], lens: NDArray[np.uint32]
    ) -> tuple[Bools, Bools]:
        """Mark many documents at once, which is ten times as fast as one by one.

        Args:
            texts: the D texts.
            tokens: their tokens, one text after another, int32 [T].
            lens: tokens of each text, uint32 [D], none of them 0.

        Returns:
            Word starts and sentence starts, each bool [T]. A token that crosses a sentence
            boundary, or a word boundary of the segmenter, counts as the start of the later
            sentence or word.
        """
        entries = self._table[tokens]
        flags = entries.astype(np.uint8)  # operations on uint8 are several times faster
        words = flags & STARTS != 0
        words[1:] |= (flags[:-1] & ENDS != 0) & (flags[1:] & CONTINUES == 0)
        placed = self._place(texts, tokens, entries, lens)
        if self._segment is not None:
            self._mark_chinese(words, placed)
        sentences = np.zeros(len(tokens), dtype=np.bool_)
        sentences[placed.tokens_at(placed.on_line(*find_boundaries(placed.texts)))] = True
        sentences[placed.first] = True
        return words | sentences, sentences

    def _place(
        self,
        texts: Sequence[str],
        tokens: NDArray[np.int32],
        entries: NDArray[np.uint32],
        lens: NDArray[np.uint32],
    ) -> "_Placed":
        stops = np.cumsum(lens, dtype=np.int64)
        first = stops - lens
        ends = np.cumsum(entries >> LENGTH_SHIFT, dtype=np.int64)
        bounds = np.concatenate([[0], ends[stops - 1]])
        # 1 if the tokenizer added a space before the text.
        added = np.diff(bounds) - np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        starts = bounds[:-1] + added
        changed = (added < 0) | (added > 1)
        if not changed.any():
            return _Placed(texts, starts, first, ends)
        # The tokenizer changed some texts; for these it must find where the tokens end.
        texts, parts, total = list(texts), [], 0
        for number, (begin, stop) in enumerate(zip(first.tolist(), stops.tolist(), strict=True)):
            if changed[number]:
                texts[number], own = self._tokenizer.align(texts[number], tokens[begin:stop])
                starts[number] = total
                size = max(len(texts[number]), int(own[-1]))
            else:
                own = ends[begin:stop] - bounds[number]
                starts[number] = total + added[number]
                size = int(own[-1])
            parts.append(own + total)
            total += size
        return _Placed(texts, starts, first, np.concatenate(parts))

    def _mark_chinese(self, words: Bools, placed: "_Placed") -> None:
        """Replace the word starts in runs of Chinese characters by those of the segmenter."""
        assert self._segment is not None
        found = [chinese_words(text, self._segment) for text in placed.texts]
        runs = placed.tokens_from(placed.on_line(*_flatten([edges for _, edges in found])))
        change = np.zeros(len(words) + 1, dtype=np.int8)  # 1 where a run begins, -1 after it
        np.add.at(change, runs[0::2], 1)
        np.add.at(change, runs[1::2], -1)
        words &= np.cumsum(change[:-1]) == 0
        starts = placed.on_line(*_flatten([starts for starts, _ in found]))
        words[placed.tokens_at(starts)] = True


def _flatten(places: Sequence[Sequence[int]]) -> tuple[Places, Places]:
    """Return the places of all texts, concatenated, int64; and their number per text, int64 [D]."""
    counts = np.fromiter(map(len, places), dtype=np.int64, count=len(places))
    return np.fromiter(chain.from_iterable(places), dtype=np.int64), counts


@dataclass(frozen=True)
class _Placed:
    """Texts joined to one line, and the places of their tokens on that line."""

    texts: Sequence[str]
    """The texts as the tokens represent them."""
    starts: Places
    """Place of the first character of each text, int64 [D]."""
    first: Places
    """Index of the first token of each text, int64 [D]."""
    ends: Places
    """Place after each token, ascending, int64 [T]."""

    def on_line(self, places: Places, counts: Places) -> Places:
        """Return the places on the line of places within texts, with their number per text [D]."""
        return places + np.repeat(self.starts, counts)

    def tokens_at(self, places: Places) -> Places:
        """Return the token that contains each place, or the next token if none contains it."""
        found: Places = np.searchsorted(self.ends, places, side="right")
        return found[found < len(self.ends)]

    def tokens_from(self, places: Places) -> Places:
        """Return the first token that begins at or after each place; T if there is none."""
        found: Places = 1 + np.searchsorted(self.ends[:-1], places)
        found[places <= 0] = 0
        return found
