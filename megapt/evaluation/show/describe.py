"""The examples that an objective makes from a window of text, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict, final

import numpy as np

from data_prep.tokenizers import Tokenizer
from megapt.data import AnyCorpus, BatchMaker, Example, HeadSpec, Piece
from megapt.data.counts import attended_pairs
from megapt.objectives import Objective

Role = Literal["text", "special", "mask", "sentinel", "replaced", "kept"]
"""What a position of the input is: a token of the text; a special token; a mask; a sentinel; a
random token that replaces the token to predict; a token to predict that is unchanged."""


class ShownPiece(TypedDict):
    """A piece of the window."""

    document: int
    part: str
    label: str | None
    tokens: int
    words: int
    sentences: int
    text: str
    pieces: list[str]
    word_starts: list[int]
    sentence_starts: list[int]


class ShownTarget(TypedDict):
    """A prediction: its head, its position, the input token there, and the right answer."""

    head: str
    position: int
    input: str
    target: str
    weight: float | None


class ShownExample(TypedDict):
    """An example; lists have one item per position."""

    document: int
    input: list[str]
    roles: list[Role]
    targets: list[ShownTarget]
    sizes: dict[str, float]
    """Denominators of the heads whose loss is not a mean over their targets."""
    segments: list[int]
    positions: list[int]
    visible: list[bool]
    pairs: int
    """(query, key) pairs that attention allows."""


class ShownHead(TypedDict):
    """A head of the objective, and its weight in the loss."""

    name: str
    kind: str
    answers: Literal["pieces", "classes"]
    weight: float


class ShownCost(TypedDict):
    """The average cost of a document of `tokens` tokens."""

    tokens: int
    positions: float
    targets: float


@final
class Shown(TypedDict):
    """A window, and the examples that an objective makes from it."""

    window: int
    raw_tokens: int
    pieces: list[ShownPiece]
    objective: str
    heads: list[ShownHead]
    cost: ShownCost
    examples: list[ShownExample]


@final
class Refused(TypedDict):
    """An objective that cannot be used on the corpus, and why."""

    objective: str
    refused: str


def _piece(piece: Piece, tokenizer: Tokenizer, labels: Sequence[str]) -> ShownPiece:
    edges = {(True, True): "whole", (True, False): "beginning", (False, True): "end"}
    return {
        "document": piece.document,
        "part": edges.get((piece.starts_document, piece.ends_document), "middle"),
        "label": labels[piece.label] if piece.label >= 0 else None,
        "tokens": len(piece.tokens),
        "words": int(piece.word_starts.sum()),
        "sentences": int(piece.sentence_starts.sum()),
        "text": tokenizer.decode(piece.tokens),
        "pieces": [tokenizer.piece(token) for token in piece.tokens.tolist()],
        "word_starts": np.flatnonzero(piece.word_starts).tolist(),
        "sentence_starts": np.flatnonzero(piece.sentence_starts).tolist(),
    }


def _roles(example: Example, objective: Objective) -> list[Role]:
    tokens, vocabulary = example.tokens, objective.vocabulary
    roles = np.where(vocabulary.reserved_table[tokens], "special", "text").astype(object)
    for head in objective.heads:
        target = example.targets.get(head.name)
        if target is not None and objective.role(head) == "masked":
            same = tokens[target.positions] == target.labels
            roles[target.positions] = np.where(same, "kept", "replaced")
    roles[np.isin(tokens, vocabulary.sentinels)] = "sentinel"
    roles[tokens == vocabulary.mask] = "mask"
    listed: list[Role] = roles.tolist()
    return listed


def _generated_positions(example: Example, heads: Sequence[HeadSpec]) -> set[int]:
    """Return the positions where a generator writes a token."""
    asked = [example.targets.get(head.name) for head in heads if head.kind == "generator"]
    return {place for target in asked if target is not None for place in target.positions.tolist()}


def _targets(
    example: Example, head: HeadSpec, heads: Sequence[HeadSpec], tokenizer: Tokenizer
) -> list[ShownTarget]:
    target = example.targets.get(head.name)
    if target is None:
        return []
    places, labels = target.positions.tolist(), target.labels.tolist()
    weights = [None] * len(labels) if target.weights is None else target.weights.tolist()
    if head.over_vocabulary:
        answers = [tokenizer.piece(label) for label in labels]
    else:
        answers = [head.labels[label] if head.labels else str(label) for label in labels]
    if head.kind == "detection":
        # The right answer there depends on what the generator writes.
        unknown = _generated_positions(example, heads)
        answers = [
            "?" if place in unknown else answer
            for place, answer in zip(places, answers, strict=True)
        ]
    return [
        {
            "head": head.name,
            "position": place,
            "input": tokenizer.piece(int(example.tokens[place])),
            "target": answer,
            "weight": weight,
        }
        for place, answer, weight in zip(places, answers, weights, strict=True)
    ]


def describe_example(example: Example, objective: Objective, tokenizer: Tokenizer) -> ShownExample:
    """Return an example of the objective as plain values."""
    heads = objective.heads
    sizes = {name: target.size for name, target in example.targets.items()}
    return {
        "document": example.document,
        "input": [tokenizer.piece(token) for token in example.tokens.tolist()],
        "roles": _roles(example, objective),
        "targets": [
            target for head in heads for target in _targets(example, head, heads, tokenizer)
        ],
        "sizes": {name: size for name, size in sizes.items() if size is not None},
        "segments": example.segments.tolist(),
        "positions": example.positions.tolist(),
        "visible": example.visible.tolist(),
        "pairs": attended_pairs(np.array([len(example)]), example.visible),
    }


def describe_window(
    maker: BatchMaker, objective: Objective, corpus: AnyCorpus, index: int
) -> Shown:
    """Return window `index` of a run and its examples as plain values.

    Args:
        maker: reads the windows and makes the objective's examples.
        objective: the objective of the maker.
        corpus: the corpus of the windows.
        index: number of the window in the sequence.
    """
    tokenizer = corpus.tokenizer()
    (window,) = maker.windows([index])
    size = objective.context.window
    cost = objective.cost(size)
    return {
        "window": index,
        "raw_tokens": window.raw_tokens,
        "pieces": [_piece(piece, tokenizer, corpus.labels) for piece in window.pieces],
        "objective": objective.name,
        "heads": [
            {
                "name": head.name,
                "kind": head.kind,
                "answers": "pieces" if head.over_vocabulary else "classes",
                "weight": head.weight,
            }
            for head in objective.heads
        ],
        "cost": {"tokens": size, "positions": cost.positions, "targets": cost.targets},
        "examples": [
            describe_example(made, objective, tokenizer) for made in maker.examples(window)
        ],
    }
