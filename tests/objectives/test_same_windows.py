"""The k-th window is the same text for every objective."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from megapt.data import BatchMaker, Corpus, CounterRng, Example, Window, WindowStream
from megapt.objectives import OBJECTIVES, Objective
from tests.objectives.builders import build


def ordinary(tokens: np.ndarray, first: int) -> list[int]:
    return [int(token) for token in tokens if token >= first]


def uncorrupted(example: Example, first: int) -> list[int]:
    """The text of a masked example: its labels put back, special tokens left out."""
    tokens = example.tokens.copy()
    if "tokens" in example.targets:
        tokens[example.targets["tokens"].positions] = example.targets["tokens"].labels
    return ordinary(tokens, first)


def read_causal(examples: list[Example], first: int) -> list[int]:
    """The first input token and all labels."""
    return [
        token
        for e in examples
        for token in ordinary(np.append(e.tokens[:1], e.targets["tokens"].labels), first)
    ]


def read_masked(examples: list[Example], first: int) -> list[int]:
    return [token for example in examples for token in uncorrupted(example, first)]


def read_rewritten(examples: list[Example], first: int) -> list[int]:
    return [t for e in examples for t in ordinary(e.targets["tokens"].labels, first)]


READERS: dict[str, Callable[[list[Example], int], list[int]]] = {
    "arlm": read_causal,
    "mlm": read_masked,
    "msc": read_masked,
    "mgm": read_rewritten,
}


W = 48


def stream_over(corpus: Corpus, policy: str = "fill") -> WindowStream:
    return WindowStream(
        corpus.train,
        corpus.manifest.fingerprint,
        seed=3,
        window=W,
        window_policy=policy,
        shuffle_buffer_shards=2,
        shuffle_buffer_blocks=2,
        lanes=2,
    )


def maker_of(corpus: Corpus, name: str, policy: str = "fill") -> BatchMaker:
    objective = build(name, corpus.vocabulary, corpus.labels, window=W)
    return BatchMaker(stream_over(corpus, policy), objective, corpus.vocabulary.pad, seed=3)


def raw_text(window: Window) -> list[int]:
    return [token for piece in window.pieces for token in piece.tokens.tolist()]


@pytest.mark.parametrize("policy", ["fill", "whole"])
def test_the_raw_text_of_every_window_is_recovered_from_every_objective(
    corpus: Corpus, policy: str
) -> None:
    stream, first = stream_over(corpus, policy), int(corpus.vocabulary.ordinary[0])
    makers = {name: maker_of(corpus, name, policy) for name in sorted(READERS)}
    pairs = {name: maker_of(corpus, name, policy) for name in ("bert", "nsp")}
    for number in range(2 * stream.count):
        place = divmod(number, stream.count)
        window = stream.window(*place)
        text = raw_text(window)
        for name, maker in makers.items():
            mine = maker.stream.window(*place)
            assert READERS[name](maker.examples(mine), first) == text, (name, number)
        # Pairs exchange their second halves: the same tokens in another order, for `nsp` twice.
        # Only windows of more than W tokens can hold a pair that is cut.
        found = {name: read_masked(pairs[name].examples(window), first) for name in pairs}
        assert not Counter(found["bert"]) - Counter(text)
        assert not Counter(found["nsp"]) - Counter(2 * text)
        if len(text) <= W:
            assert Counter(found["bert"]) == Counter(text)


class Spied:
    """An objective that notes the windows it is given."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.seen: list[tuple[int, int, list[list[int]]]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._objective, name)

    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        text = [piece.tokens.tolist() for piece in window.pieces]
        self.seen.append((window.epoch, window.index, text))
        return self._objective.examples(window, rng)


def test_batch_k_is_made_of_the_same_windows_for_every_objective(corpus: Corpus) -> None:
    seen, raw_tokens = {}, {}
    for name in OBJECTIVES:
        spied = Spied(build(name, corpus.vocabulary, corpus.labels, window=W))
        maker = BatchMaker(stream_over(corpus), spied, corpus.vocabulary.pad, seed=3)
        raw_tokens[name] = [maker.batch(range(k, k + 4)).counts.raw_tokens for k in range(0, 40, 4)]
        seen[name] = spied.seen
    assert all(windows == seen["arlm"] for windows in seen.values())
    assert all(counts == raw_tokens["arlm"] for counts in raw_tokens.values())
