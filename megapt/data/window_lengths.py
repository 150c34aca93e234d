"""Splits windows into parts, so that a run may begin with shorter texts.

This is the warm-up of the sequence length (Li et al. 2022, "The stability-efficiency dilemma") by
reshaping instead of truncation: a step holds the same text, but no token attends beyond its part.
The order and the amount of text per step do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from megapt.data.example import Piece, Window


class LengthSchedule:
    """The length of the parts as a function of the step.

    Args:
        stages: (steps, tokens of a part) of each stage, in order; after the last stage windows
            are not split.
    """

    def __init__(self, stages: Sequence[tuple[int, int]] = ()) -> None:
        self._ends = tuple(accumulate(steps for steps, _ in stages))
        self._lengths = tuple(length for _, length in stages)

    def length(self, step: int | None) -> int | None:
        """Return the tokens of a part; None if windows are whole, as for validation (no step)."""
        if step is None:
            return None
        stages = zip(self._ends, self._lengths, strict=True)
        return next((length for end, length in stages if step < end), None)

    def agrees(self, other: LengthSchedule, steps: int) -> bool:
        """Return whether the parts of the first `steps` steps have the same lengths."""
        changes = {0, *self._ends, *other._ends}
        return all(self.length(step) == other.length(step) for step in changes if step < steps)


def cut_piece(piece: Piece, start: int, stop: int) -> Piece:
    """Return a piece with the tokens [start, stop) of `piece`, 0 <= start < stop <= n."""
    words, sentences = piece.word_starts[start:stop], piece.sentence_starts[start:stop]
    if start:
        # The first token of a piece begins a word and a sentence of that piece.
        words, sentences = words.copy(), sentences.copy()
        words[0] = sentences[0] = True
    return replace(
        piece,
        tokens=piece.tokens[start:stop],
        word_starts=words,
        sentence_starts=sentences,
        starts_document=piece.starts_document and not start,
        ends_document=piece.ends_document and stop == len(piece.tokens),
    )


def split_window(window: Window, length: int) -> list[Window]:
    """Split a window at each multiple of `length` tokens."""
    parts: list[list[Piece]] = [[]]
    room = length
    for piece in window.pieces:
        start, size = 0, len(piece.tokens)
        while start < size:
            if not room:
                parts.append([])
                room = length
            stop = min(start + room, size)
            parts[-1].append(cut_piece(piece, start, stop))
            room -= stop - start
            start = stop
    return [replace(window, pieces=tuple(pieces)) for pieces in parts]
