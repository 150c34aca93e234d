"""Data types of the stages: windows of raw text, and the examples made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
"""Integers of any width: token ids keep the narrow type of the shards."""
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]

RESERVED = 3
"""Most special tokens that an objective puts around one piece: [CLS] A [SEP] B [SEP]."""

Attention = Literal["causal", "bidirectional", "prefix"]


@dataclass(frozen=True)
class Piece:
    """A document, or a part of one, inside a window."""

    tokens: Ints
    """Raw token ids without special tokens, any integer type [n], n from 1 to W. Read-only: it may
    be a view of the corpus."""
    word_starts: Bools
    """bool [n]; the first token of a piece begins a word and a sentence, also after a cut."""
    sentence_starts: Bools
    document: int
    """Number of the document in the corpus."""
    label: int
    """Class of the document, -1 if it has none."""
    starts_document: bool
    ends_document: bool


@dataclass(frozen=True)
class Window:
    """The unit of data: the same text for every objective, W tokens of it.

    With the policy `fill` it holds W tokens; the last window of an epoch holds the rest. With
    `whole` it holds W tokens on average and 2 W - 1 at most. It is empty where its text was skipped
    or the last document of an epoch begins before it.
    """

    epoch: int
    index: int
    """Number of the window in its epoch."""
    pieces: tuple[Piece, ...]
    corpus: int = 0
    """Number of the corpus in its mixture."""
    step: int | None = None
    """Step that the window belongs to, from 0. None for validation windows, for which schedules
    have their final values."""

    @property
    def raw_tokens(self) -> int:
        """Tokens of text in this window."""
        return sum(len(piece.tokens) for piece in self.pieces)


@dataclass(frozen=True)
class Targets:
    """What one head predicts in one example."""

    positions: Ints
    """Positions of the example whose hidden states the head reads, any integer type [t]."""
    labels: Ints
    """Correct token ids or classes, any integer type [t]."""
    weights: Floats | None = None
    """Factor of each loss, [t]; None: 1."""
    size: float | None = None
    """Denominator of the mean loss; None: the number of targets."""
    draws: Floats | None = None
    """Uniform draws from [0, 1) for a head that samples, one per target, [t]."""


@dataclass(frozen=True)
class Example:
    """The model's input and targets that an objective makes from (a part of) a window.

    Query i attends to key j <= i, and to any key j with `visible[j]`, in the same example only.
    """

    tokens: Ints
    """Input ids, any integer type [n]."""
    positions: Ints
    """Position ids, below W + RESERVED, any integer type [n]."""
    segments: Ints
    """Segment (sentence) ids, below `Objective.segments` or all 0, any integer type [n]."""
    visible: Bools
    """bool [n]; keys that every query of the example may see: all in a bidirectional example, none
    in a causal one, the source in a prefix one."""
    targets: Mapping[str, Targets]
    """Name of a head -> what it predicts."""
    document: int = -1
    """Document that the example was made from (the first one, if there are several)."""

    def __len__(self) -> int:
        return len(self.tokens)


HeadKind = Literal["token", "sequence", "pair", "generator", "detection"]
HeadRole = Literal["", "next", "masked", "class"]
LossWeighting = Literal["all", "windows", "targets"]


@dataclass(frozen=True)
class HeadSpec:
    """A head that an objective needs, and its part of the loss."""

    name: str
    """Name of the part, under which its loss and accuracy are reported."""
    kind: HeadKind
    """`token`: a distribution over the vocabulary. `sequence`: one over `classes`, from one state.
    `pair`: one over `classes`, from the mean states of segments 0 and 1; its target is at the first
    position of an example. `generator`: one over the vocabulary, from a separate small Transformer,
    whose samples replace the predicted tokens before the trunk reads the text. `detection`: whether
    a token is such a sample."""
    classes: int = 0
    weight: float = 1.0
    """Weight of this part in the loss."""
    labels: tuple[str, ...] = field(default=())
    """Names of the classes."""
    scale: float = 1.0
    """Width of a generator, as a share of the model's."""
    role: HeadRole = ""
    """What it predicts: `next`, the token after a position; `masked`, the original token at a
    position; `class`, the class of the document, at its first position. If empty,
    `Objective.role` decides."""
    module: str = ""
    """Parts with the same module share its weights; by default each part has its own."""
    shares: tuple[LossWeighting, ...] = ()
    """For a part `member/.../head` of nested mixtures: how each mixture, the outermost first,
    weights its members in the loss of a step. `windows`: by the number of windows with targets for
    the member; `targets`: by the number of targets, so that each target has the same weight;
    `all`: equally."""

    @property
    def over_vocabulary(self) -> bool:
        """Whether the labels are tokens."""
        return self.kind in ("token", "generator")

    @property
    def owner(self) -> str:
        """Name of the module."""
        return self.module or self.name


def member_of(part: str) -> str:
    """Return the member of the part `member/head` of a mixture; otherwise the head itself."""
    return part.rpartition("/")[0] or part


def concatenate(*parts: int | Ints) -> Ints:
    """Concatenate ids and texts, as in `concatenate(cls, text, sep)`.

    Args:
        parts: single ids and texts [n] of one integer type, at least one text.

    Returns:
        The ids in the type of the texts, so that narrow ones stay narrow.

    Raises:
        OverflowError: if a single id does not fit that type.
    """
    texts = [part for part in parts if not isinstance(part, int)]
    singles = len(parts) - len(texts)
    ids = np.empty(sum(map(len, texts)) + singles, dtype=texts[0].dtype)
    at = 0
    for part in parts:
        stop = at + (1 if isinstance(part, int) else len(part))
        ids[at:stop] = part
        at = stop
    return ids


def make_example(
    tokens: Sequence[int] | Ints,
    attention: Attention,
    targets: Mapping[str, Targets],
    *,
    positions: Ints | None = None,
    segments: Ints | None = None,
    prefix: int = 0,
    document: int = -1,
) -> Example:
    """Build an example with the usual defaults: positions 0..n-1 and segment 0.

    Args:
        tokens: input ids [n]; an array keeps its integer type.
        attention: `prefix` makes the first `prefix` keys visible to all queries.
        targets: head name -> targets.
        positions: position ids [n]; by default 0..n-1, int32.
        segments: segment ids [n]; by default 0, uint8.
        prefix: length of the source of a prefix example.
        document: number of the document.
    """
    ids = np.asarray(tokens)
    n = len(ids)
    visible = np.full(n, attention == "bidirectional")
    if attention == "prefix":
        visible[:prefix] = True
    return Example(
        tokens=ids,
        positions=np.arange(n, dtype=np.int32) if positions is None else positions,
        segments=np.zeros(n, dtype=np.uint8) if segments is None else segments,
        visible=visible,
        targets=targets,
        document=document,
    )
