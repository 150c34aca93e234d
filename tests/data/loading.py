"""The ranks of a run, one after another, and the global batches that they make together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megapt.config import DataConfig
from megapt.data import (
    Batch,
    BatchMaker,
    Example,
    Loader,
    LoaderState,
    Rows,
    TextBatch,
    TextMaker,
    open_corpora,
    open_stream,
)
from tests.objectives.builders import build

GLOBAL_BATCH = 48
"""Windows: divides by 1, 2, 3, 4 and 8 ranks."""
PER_TOKEN = ("tokens", "positions", "segments", "visible")

Arrays = dict[str, NDArray[Any]]
Maker = BatchMaker | TextMaker
OpenMaker = Callable[[], AbstractContextManager[Maker]]


def describe_data(*where: str | Path, **changes: Any) -> DataConfig:
    """Settings that read one corpus, or two in a mixture.

    The second corpus of the mixture is read 1.5 times, and from step 7 on with 4.5 times the
    weight.
    """
    usual: dict[str, Any] = {
        "corpus": str(where[0]),
        "window": 32,
        "shuffle_buffer_shards": 2,
        "shuffle_buffer_blocks": 3,
        "lanes": 4,
    }
    if len(where) > 1:
        large, small = map(str, where)
        usual["corpus"] = None
        usual["mixture"] = {
            "corpora": {
                "large": {"path": large, "weight": 2.0},
                "small": {"path": small, "weight": 1.0, "max_epochs": 1.5},
            },
            "schedule": [{"step": 7, "weights": {"small": 4.5}}],
        }
    return DataConfig.model_validate({**usual, **changes})


@contextmanager
def open_maker(
    data: DataConfig, kind: str, *, seed: int = 5, split: Any = "train", rows: Rows | None = None
) -> Iterator[Maker]:
    """Open all that `data` names, as a rank does; `kind` is an objective or `text`."""
    with closing(open_corpora(data)) as corpus:
        stream = open_stream(corpus, split, data, seed=seed, global_batch_size=GLOBAL_BATCH)
        if kind == "text":
            yield TextMaker(stream)
        else:
            objective = build(kind, corpus.vocabulary, corpus.labels, window=data.window)
            yield BatchMaker(stream, objective, corpus.vocabulary.pad, seed, rows)


def _laid(examples: Sequence[Example]) -> Arrays:
    arrays = {name: np.concatenate([getattr(e, name) for e in examples]) for name in PER_TOKEN}
    arrays["starts"] = np.cumsum([0, *map(len, examples)])
    for start, example in zip(arrays["starts"].tolist(), examples, strict=False):
        for head, target in example.targets.items():
            for name, values in (("places", target.positions + start), ("labels", target.labels)):
                arrays.setdefault(f"{head} {name}", np.zeros(0, dtype=np.int64))
                arrays[f"{head} {name}"] = np.append(arrays[f"{head} {name}"], values)
    return arrays


def expected_batch(maker: Maker, step: int) -> Arrays:
    """The global batch of a step, from the stream alone: its windows in the order of lanes."""
    numbers = np.arange(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)
    lanes = dict(zip(numbers.tolist(), maker.stream.lanes(numbers).tolist(), strict=True))
    windows = maker.stream.windows(sorted(lanes, key=lambda number: (lanes[number], number)))
    if isinstance(maker, BatchMaker):
        return _laid([example for window in windows for example in maker.examples(window)])
    pieces = [piece.tokens for window in windows for piece in window.pieces]
    return {"tokens": np.concatenate(pieces), "starts": np.cumsum([0, *map(len, pieces)])}


def joined(batches: Sequence[Batch | TextBatch]) -> Arrays:
    """The batches as one: what a single rank with one large micro-batch would hold.

    A batch without examples holds a position that nothing reads; it is left out.
    """
    kept = [b for b in batches if isinstance(b, TextBatch) or b.counts.positions]
    names = [name for name in PER_TOKEN if hasattr(kept[0], name)]
    if isinstance(kept[0], TextBatch):
        names = ["tokens"]
    arrays = {name: np.concatenate([getattr(b, name).numpy() for b in kept]) for name in names}
    firsts = np.cumsum([0, *(len(batch.tokens) for batch in kept)])[:-1].tolist()
    starts = [b.starts[:-1].numpy() + first for b, first in zip(kept, firsts, strict=True)]
    arrays["starts"] = np.append(np.concatenate(starts), len(arrays["tokens"]))
    for head in getattr(kept[0], "targets", ()):
        targets = [batch.targets[head] for batch in kept if isinstance(batch, Batch)]
        places = [t.places.numpy() + first for t, first in zip(targets, firsts, strict=True)]
        arrays[f"{head} places"] = np.concatenate(places)
        arrays[f"{head} labels"] = np.concatenate([t.labels.numpy() for t in targets])
    return arrays


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name in found:
        assert np.array_equal(found[name], expected[name]), name


@dataclass(frozen=True)
class Job:
    """How a run is spread over processes: what nothing that is read may depend on."""

    world: int = 1
    workers: int = 0
    micro: int | None = None
    """Windows; the whole share of a rank by default."""


def run(
    open_one: OpenMaker, job: Job, steps: int, state: LoaderState | None = None
) -> tuple[dict[int, Any], LoaderState]:
    """Read some steps on all ranks, from `state` on.

    Returns:
        The micro-batches of each step, rank by rank, and the state after the last one.
    """
    found: dict[int, list[Batch | TextBatch]] = {}
    with ExitStack() as stack:
        loaders = []
        for rank in range(job.world):
            maker = stack.enter_context(open_one())
            loader: Loader[Any] = Loader(
                maker,
                global_batch_size=GLOBAL_BATCH,
                micro_batch_size=job.micro,
                rank=rank,
                world=job.world,
            )
            loaders.append(loader)
            if state is not None:
                loader.resume(state)
            with closing(loader.iterate(job.workers)) as iterator:
                read = list(islice(iterator, steps))
            assert not found or [step for step, _ in read] == list(found), "ranks do other steps"
            for step, batches in read:
                found.setdefault(step, []).extend(batches)
        return found, gathered_state(loaders)


def gathered_state(loaders: Sequence[Loader[Any]]) -> LoaderState:
    """The state that every rank gets by gathering the parts of all."""
    parts: list[Any] = []
    for loader in loaders:
        loader.state(lambda part: parts.append(part) or [part])  # type: ignore[func-returns-value]
    first, *others = [loader.state(lambda _: parts) for loader in loaders]
    assert all(other == first for other in others)
    return first
