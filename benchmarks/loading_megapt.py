"""The cases of `loading.py` that use megapt; each prints JSON.

    python -m benchmarks.loading_megapt NAME --data CORPUS --workers N

`text` delivers tokens and the starts of pieces of documents. The others also make the examples of
an objective with its defaults, with masks if it uses them.
"""

import argparse
from collections.abc import Iterator
from contextlib import closing

from benchmarks.delivery import ROWS, WINDOW, main
from megapt.config import DataConfig
from megapt.data import Batch, BatchMaker, Corpus, Loader, TextBatch, TextMaker, open_stream
from megapt.data.batch_maker import Maker
from megapt.objectives import OBJECTIVES, Context


def read(options: argparse.Namespace, name: str) -> Iterator[int]:
    """Yield the tokens of text in each batch of one epoch.

    Args:
        options: options of the command line.
        name: name of an objective, or "text".
    """
    data = DataConfig(corpus=str(options.data), window=WINDOW)
    corpus = Corpus(options.data)
    stream = open_stream(corpus, "train", data, seed=0)
    maker: Maker[Batch | TextBatch] = TextMaker(stream)
    if name != "text":
        kind = OBJECTIVES[name]
        objective = kind(kind.Config(), Context(corpus.vocabulary, WINDOW))
        maker = BatchMaker(stream, objective, corpus.vocabulary.pad, seed=0)
    with closing(Loader(maker, global_batch_size=ROWS).iterate(options.workers)) as batches:
        for step, [batch] in batches:
            if step == stream.count // ROWS:
                return
            yield batch.counts.raw_tokens if isinstance(batch, Batch) else len(batch.tokens)


def text(options: argparse.Namespace) -> Iterator[int]:
    """Yield the tokens of each batch without an objective."""
    return read(options, "text")


def arlm(options: argparse.Namespace) -> Iterator[int]:
    """Yield the tokens of each batch of `arlm`."""
    return read(options, "arlm")


def mlm(options: argparse.Namespace) -> Iterator[int]:
    """Yield the tokens of each batch of `mlm`."""
    return read(options, "mlm")


if __name__ == "__main__":
    main((__doc__ or "").split("\n")[0], {"text": text, "arlm": arlm, "mlm": mlm})
