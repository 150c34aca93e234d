"""What passes between the stages: windows of raw text, and the examples made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
"""Whole numbers of any width: token ids stay as narrow as the shards hold them."""
Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]

RESERVED = 3
"""Most special tokens that an objective puts around one piece: [CLS] A [SEP] B [SEP]."""

Attention = Literal["causal", "bidirectional", "prefix"]


@dataclass(frozen=True)
class Piece:
    """A document, or a part of one, inside a window."""

    tokens: Ints
    """Raw token ids, any integer type [n], n from 1 to W; no special tokens. Not to be changed: it
    may be a view of the corpus."""
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

    With the policy `fill` it holds W tokens, the last one of an epoch what is left; with `whole` W
    on average, 2 W - 1 at most, and none where its text was skipped or the last document of an
    epoch begins before it.
    """

    epoch: int
    index: int
    """Number of the window in its epoch."""
    pieces: tuple[Piece, ...]
    corpus: int = 0
    """Number of the corpus in its mixture."""
    step: int | None = None
    """Update that the window belongs to, from 0. None for held-out text: what follows a schedule
    stands where the schedule ends."""

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
    """The right answers: token ids or classes, any integer type [t]."""
    weights: Floats | None = None
    """Factor of the loss of each, [t]; None: 1."""
    size: float | None = None
    """What the losses are a mean over: the number of targets, unless another is given here."""
    draws: Floats | None = None
    """For a head that samples: uniform draws from [0, 1), one a target, [t]."""


@dataclass(frozen=True)
class Example:
    """What an objective makes of (a part of) a window: the model's input and its targets.

    Query i may look at key j <= i, and at any key j with `visible[j]`, of the same example only.
    """

    tokens: Ints
    """Input ids, any integer type [n]."""
    positions: Ints
    """Position ids, below W + RESERVED, any integer type [n]."""
    segments: Ints
    """Segment (sentence) ids, below `Objective.segments` or all 0, any integer type [n]."""
    visible: Bools
    """Keys that every query of the example may see: all in a bidirectional example, none in a
    causal one, the source of a prefix one."""
    targets: Mapping[str, Targets]
    """Name of a head -> what it predicts."""
    document: int = -1
    """Document the example was made of (the first, if of several)."""

    def __len__(self) -> int:
        return len(self.tokens)


HeadKind = Literal["token", "sequence", "pair", "generator", "detection"]
HeadRole = Literal["", "next", "masked", "class"]
LossWeighting = Literal["all", "windows", "targets"]


@dataclass(frozen=True)
class HeadSpec:
    """A head that an objective asks for, and its part of the loss."""

    name: str
    """Of the part: what its loss and accuracy are reported under."""
    kind: HeadKind
    """`token`: a distribution over the vocabulary. `sequence`: one over `classes`, from one state.
    `pair`: the same from the mean states of segments 0 and 1; it is asked at the first position
    of an example. `generator`: the vocabulary, from a small Transformer of its own, whose samples
    take the place of what it predicts before the trunk reads the text; `detection`: whether a token
    is one of them."""
    classes: int = 0
    weight: float = 1.0
    """Weight of this part in the loss."""
    labels: tuple[str, ...] = field(default=())
    """Names of the classes."""
    scale: float = 1.0
    """Width of a generator, as a share of the model's."""
    role: HeadRole = ""
    """What of a text it tells: `next`, the token after a position; `masked`, the token that belongs
    there; `class`, the class of the document, at its first position. If it says nothing, what
    `Objective.role` takes it for."""
    module: str = ""
    """Parts of one module share its weights; by default each part has its own."""
    shares: tuple[LossWeighting, ...] = ()
    """Of a part `member/.../head` of mixtures: how each of them, the outermost first, weighs its
    members in a step's loss. `windows`: by the windows that ask something of a member; `targets`:
    by what is asked, so that each target counts alike; `all`: all alike."""

    @property
    def over_vocabulary(self) -> bool:
        """Whether the answers are tokens."""
        return self.kind in ("token", "generator")

    @property
    def owner(self) -> str:
        """Name of the module."""
        return self.module or self.name


def asking_member(part: str) -> str:
    """Return the member of a mixture that the part `member/head` belongs to; else the head."""
    return part.rpartition("/")[0] or part


def concatenate(*parts: int | Ints) -> Ints:
    """Lay ids and texts end to end: `concatenate(cls, text, sep)`.

    Args:
        parts: single ids and texts [n] of one integer type, at least one text.

    Returns:
        The ids in the type of the texts, so that narrow ones stay narrow.

    Raises:
        OverflowError: if a single id does not fit that type.
    """
    texts = [part for part in parts if not isinstance(part, int)]
    singles = len(parts) - len(texts)
    laid = np.empty(sum(map(len, texts)) + singles, dtype=texts[0].dtype)
    at = 0
    for part in parts:
        stop = at + (1 if isinstance(part, int) else len(part))
        laid[at:stop] = part
        at = stop
    return laid


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
        attention: `prefix` makes the first `prefix` keys visible to all.
        targets: head name -> targets.
        positions: position ids [n], if other than 0..n-1 (int32).
        segments: segment ids [n], if other than 0 (uint8).
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
