"""Every objective learns a handful of texts by heartbeat, and its decoder gives them back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from megapt.data import BatchMaker, Corpus, CounterRng, Example, Piece, Targets, Window, open_stream
from megapt.evaluation import LoadedRun, unmask
from megapt.evaluation.losses import Scores
from megapt.model.decoding import extended
from megapt.objectives import OBJECTIVES
from tests.training.runs import ALONE

Overfitted = Callable[[str], LoadedRun]

WRITERS = ["arlm", "prefix_lm", "span_corruption", "infilling", "ul2", "fim", "mgm", "mixture"]


def entropy(labels: torch.Tensor) -> float:
    """The loss of the best answer that ignores the input, in nats."""
    shares = labels.bincount() / len(labels)
    return float(torch.special.entr(shares).sum())


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_its_loss_comes_close_to_zero(overfitted: Overfitted, objective: str) -> None:
    run = overfitted(objective)
    assert run.config.data.corpus is not None
    corpus = Corpus(run.config.data.corpus)
    # The training text under draws that were not trained on, over several epochs.
    stream = open_stream(corpus, "train", run.config.data, seed=77)
    maker = BatchMaker(stream, run.objective, corpus.vocabulary.pad, seed=77)
    batch = maker.batch(range(100)).widen()
    scores = Scores(run.objective.heads)
    with torch.no_grad():
        scores.add(run.model(batch).parts, batch)
    found = scores.reduce(ALONE)
    for head in run.objective.heads:
        blind = entropy(batch.targets[head.name].labels)
        assert found[f"loss/{head.name}"] < 0.1 * blind, head.name


def begin(example: Example, mid: int) -> tuple[Example, list[int]]:
    """The example up to where its writing begins, and what it should write."""
    [asked] = example.targets.values()
    skipped = 0
    if not example.visible.any():
        # A rearranged text gives all but its middle, but that may be all of it; one from left to
        # right gives nothing. Some words have to tell which text it is.
        gap = int((example.tokens == mid).argmax())
        skipped = min(max(gap, 6), len(asked.labels) - 1)
    stop = int(asked.positions[skipped]) + 1
    arrays = {
        name: getattr(example, name)[:stop]
        for name in ("tokens", "positions", "segments", "visible")
    }
    return replace(example, targets={}, **arrays), asked.labels[skipped:].tolist()


def write(run: LoadedRun, example: Example, tokens: int) -> list[int]:
    """The most likely token, one after another; special ones are tokens as any other."""
    written: list[int] = []
    for _ in range(tokens):
        last = Targets(np.array([len(example) - 1]), np.zeros(1, dtype=np.int64))
        with torch.no_grad():
            logits = run.model.predict(
                run.batch([replace(example, targets={"tokens": last})]), "tokens"
            )
        written.append(int(logits.argmax()))
        example = extended(example, written[-1])
    return written


@pytest.mark.parametrize("objective", WRITERS)
def test_its_decoder_writes_what_was_asked(
    overfitted: Overfitted, learnt: list[Piece], objective: str
) -> None:
    run = overfitted(objective)
    vocabulary = run.tokenizer.vocabulary
    right = total = 0
    for piece in learnt:
        for key in range(16):
            window = Window(0, 0, (piece,))
            for example in run.objective.examples(window, CounterRng("write", key)):
                if not example.visible.all():  # One of the mixture's masked texts.
                    start, labels = begin(example, vocabulary.infilling["MID"])
                    right += write(run, start, len(labels)) == labels
                    total += 1
    assert right > 0.9 * total > 0


@pytest.mark.parametrize("objective", ["mlm", "msc", "diffusion"])
def test_half_of_a_text_gives_back_the_whole(
    overfitted: Overfitted, learnt: list[Piece], objective: str
) -> None:
    run = overfitted(objective)
    for piece in learnt:
        masked = piece.tokens.copy()
        masked[1::2] = run.tokenizer.vocabulary.mask
        assert unmask(run, masked).tolist() == piece.tokens.tolist()


@pytest.mark.parametrize(("objective", "head"), [("bert", "tokens"), ("electra", "generator")])
def test_what_is_masked_is_filled_in(
    overfitted: Overfitted, learnt: list[Piece], objective: str, head: str
) -> None:
    run = overfitted(objective)
    right = total = 0
    for key in range(20):
        window = Window(0, 0, tuple(learnt))
        batch = run.batch(run.objective.examples(window, CounterRng("fill", key)))
        with torch.no_grad():
            filled = run.model.predict(batch, head).argmax(dim=-1)
        labels = batch.targets[head].labels
        right += int((filled == labels).sum())
        total += len(labels)
    assert right > 0.9 * total > 0
