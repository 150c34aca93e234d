"""Makes batches of windows: an objective's examples, or plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from megapt.data.batch import PackedBatch, collate
from megapt.data.batch_schedule import GlobalBatch, as_schedule
from megapt.data.example import Example, HeadSpec, Ints, Window
from megapt.data.packing import Rows
from megapt.data.random import CounterRng
from megapt.data.stream import Stream
from megapt.data.window_lengths import LengthSchedule, split_window

Widened = TypeVar("Widened", covariant=True)


class Packed(Protocol[Widened]):
    """A batch in narrow types, for transfer between processes."""

    def widen(self) -> Widened:
        """Return the batch in the types that the model reads."""


class Maker(Protocol[Widened]):
    """Makes batches of windows."""

    @property
    def stream(self) -> Stream:
        """The windows."""

    def batch(self, numbers: Sequence[int]) -> Packed[Widened]:
        """Return the batch of the windows with these numbers."""


class ExampleMaker(Protocol):
    """The part of an objective that the loader needs."""

    @property
    def name(self) -> str:
        """Name of the objective; it keys the draws."""

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """Heads that the examples have targets for."""

    def longest_example(self, window: int) -> int:
        """Return the maximum number of positions of an example, with W = `window`."""

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return the examples of a window."""


class BatchMaker:
    """Turns windows into batches of an objective's examples.

    Args:
        stream: the windows.
        objective: makes the examples.
        pad: id of the pad token.
        seed: keys the objective's draws, together with corpus, split, epoch and window.
        rows: shape of the rows that examples are packed into; None concatenates them.
        global_batch_size: windows per step, or their schedule, which give the step of each window;
            None for validation windows, which have no step.
        lengths: length of the parts that the windows of a step are split into.
    """

    def __init__(
        self,
        stream: Stream,
        objective: ExampleMaker,
        pad: int,
        seed: int,
        rows: Rows | None = None,
        global_batch_size: GlobalBatch | None = None,
        lengths: LengthSchedule = LengthSchedule(),
    ) -> None:
        self.stream = stream
        self.objective = objective
        self._batches = None if global_batch_size is None else as_schedule(global_batch_size)
        self._lengths = lengths
        self._pad = pad
        self._seed = seed
        self._rows = rows
        self._heads = [head.name for head in objective.heads]
        self._token_heads = [head.name for head in objective.heads if head.over_vocabulary]

    def with_objective(self, objective: ExampleMaker) -> BatchMaker:
        """Return a maker of batches of another objective from the same windows."""
        return BatchMaker(
            self.stream, objective, self._pad, self._seed, self._rows, self._batches, self._lengths
        )

    def windows(self, numbers: Sequence[int]) -> list[Window]:
        """Read the windows with these numbers and set their steps."""
        windows = self.stream.windows(numbers)
        if self._batches is None:
            return windows
        return [
            replace(window, step=self._batches.step_of(number))
            for window, number in zip(windows, numbers, strict=True)
        ]

    def examples(self, window: Window) -> list[Example]:
        """Return the examples of a window, part by part.

        They depend on (seed, corpus, split, epoch, index) and, with schedules, on the step only.
        """
        return [example for examples in self._examples_by_part(window) for example in examples]

    def _examples_by_part(self, window: Window) -> list[list[Example]]:
        """Return the examples of each part of a window; usually there is only one part."""
        corpus, split = self.stream.keys[window.corpus], self.stream.name
        key = (self._seed, corpus, split, window.epoch, window.index, self.objective.name)
        rng = CounterRng(*key)
        length = self._lengths.length(window.step)
        if length is None:
            return [self.objective.examples(window, rng)]
        return [
            self.objective.examples(part, rng.child("part", number))
            for number, part in enumerate(split_window(window, length))
        ]

    def batch(self, numbers: Sequence[int]) -> PackedBatch:
        """Return the batch of the windows with these numbers in the sequence."""
        windows = self.windows(numbers)
        by_part = [part for window in windows for part in self._examples_by_part(window)]
        return collate(
            [example for part in by_part for example in part],
            pad=self._pad,
            heads=self._heads,
            token_heads=self._token_heads,
            raw_tokens=sum(window.raw_tokens for window in windows),
            per_window=list(map(len, by_part)),
            key=min(numbers, default=0),
            rows=self._rows,
        )


@dataclass(frozen=True)
class TextBatch:
    """The concatenated text of some windows, for masks and labels that are made elsewhere."""

    tokens: Tensor
    """Raw token ids, int64 [n]; with `fill` n is windows x W, except at the end of an epoch."""
    starts: Tensor
    """First index of each piece of a document, plus the end, int64 [pieces + 1]."""

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """`starts` in the type that variable-length attention needs, int32 [pieces + 1]."""
        return self.starts.int()

    @cached_property
    def positions(self) -> Tensor:
        """Position of each token in its piece, int64 [n]."""
        lengths = self.starts.diff()
        return torch.arange(len(self.tokens)) - self.starts[:-1].repeat_interleave(lengths)


@dataclass(frozen=True)
class PackedText:
    """A `TextBatch` in narrow types."""

    tokens: NDArray[Any]
    """uint16 or uint32 [n]."""
    starts: Ints
    """int64 [pieces + 1]."""

    def widen(self) -> TextBatch:
        """Return the batch in int64."""
        return TextBatch(
            torch.from_numpy(self.tokens.astype(np.int64)), torch.from_numpy(self.starts)
        )


class TextMaker:
    """Turns windows into batches of their tokens, without special tokens.

    Args:
        stream: the windows.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def batch(self, numbers: Sequence[int]) -> PackedText:
        """Return the batch of the windows with these numbers in the sequence."""
        return PackedText(*self.stream.text(numbers))
