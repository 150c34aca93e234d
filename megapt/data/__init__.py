"""From shards to batches: corpus, order, windows, examples, rows. Independent of objectives."""

from data_prep.vocabulary import Vocabulary
from megapt.data.batch import Batch, PackedBatch, collate
from megapt.data.batch_maker import BatchMaker, ExampleMaker, TextBatch, TextMaker
from megapt.data.batch_schedule import BatchSchedule, GlobalBatch
from megapt.data.corpus import Corpus, Split
from megapt.data.counts import Counts
from megapt.data.example import (
    RESERVED,
    Attention,
    Example,
    HeadSpec,
    Piece,
    Targets,
    Window,
    make_example,
)
from megapt.data.loader import Loader, validation_batches
from megapt.data.order import WindowOrder
from megapt.data.packing import Rows
from megapt.data.random import CounterRng, derive_key
from megapt.data.sources import AnyCorpus, MixedCorpus, TextFacts, open_corpora, open_stream
from megapt.data.state import LoaderState
from megapt.data.stream import Stream, WindowStream
from megapt.data.window_lengths import LengthSchedule

__all__ = [
    "RESERVED",
    "AnyCorpus",
    "Attention",
    "Batch",
    "BatchMaker",
    "BatchSchedule",
    "Corpus",
    "CounterRng",
    "Counts",
    "Example",
    "ExampleMaker",
    "GlobalBatch",
    "HeadSpec",
    "LengthSchedule",
    "Loader",
    "LoaderState",
    "MixedCorpus",
    "PackedBatch",
    "Piece",
    "Rows",
    "Split",
    "Stream",
    "Targets",
    "TextBatch",
    "TextFacts",
    "TextMaker",
    "Vocabulary",
    "Window",
    "WindowOrder",
    "WindowStream",
    "collate",
    "derive_key",
    "make_example",
    "open_corpora",
    "open_stream",
    "validation_batches",
]
