"""Quality of the shuffled order of an epoch, from indexes alone.

    python -m benchmarks.shuffling --figure shuffling.svg

README.md in this folder describes what each figure means.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from benchmarks.common import header, print_header, table
from benchmarks.orders import (
    SHARDS,
    WINDOW,
    Ints,
    Order,
    Reading,
    Simulated,
    all_documents,
    all_windows,
    buffered,
    expanded,
    here,
    in_order,
)

BATCH = 256  # windows
SOURCES = 32

SETTINGS = (
    (1, 1, 1),
    (1, 8, 1),
    (8, 8, 1),
    (8, 8, 4),
    (1, 8, 8),
    (8, 1, 8),
    (8, 8, 8),
    (8, 16, 8),
    (16, 8, 8),
    (8, 8, 16),
)
"""shuffle_buffer_shards, shuffle_buffer_blocks, lanes."""
DEFAULTS = (8, 8, 8)

TABLE: dict[str, Order] = {
    "in order": in_order,
    "all windows shuffled": all_windows,
    "all documents shuffled": all_documents,
    **{
        f"webdataset, buffer of {n:,} documents": partial(buffered, size=n) for n in (1_000, 10_000)
    },
    **{f"py1e, block of {n:,} windows": partial(expanded, spread=n) for n in (4_096, 16_384)},
    **{
        f"megapt, span {span}, blocks {blocks}, lanes {lanes}"
        + (" (defaults)" if (span, blocks, lanes) == DEFAULTS else ""): partial(
            here, span=span, blocks=blocks, lanes=lanes
        )
        for span, blocks, lanes in SETTINGS
    },
}
BLOCK_COUNTS = (1, 2, 4, 8, 16, 32)
SERIES: dict[str, list[Order]] = {
    **{
        f"megapt, {lanes} lane{'s' * (lanes > 1)}": [
            partial(here, span=8, blocks=blocks, lanes=lanes) for blocks in BLOCK_COUNTS
        ]
        for lanes in (1, 8, 32)
    },
    "py1e": [partial(expanded, spread=1 << n) for n in range(11, 17)],
    "webdataset": [partial(buffered, size=n) for n in (100, 1_000, 10_000, 50_000)],
}
# Okabe & Ito 2008, safe for color-blind readers; markers and dashes differ without color.
LOOKS = (
    ("#56B4E9", "o", "-"),
    ("#0072B2", "s", "-"),
    ("#000000", "D", "-"),
    ("#D55E00", "^", "--"),
    ("#CC79A7", "v", "-."),
)


LEVELS = {
    "all windows shuffled": "--",
    "all documents shuffled": "-.",
    "in order": ":",
}


class Quality(NamedTuple):
    """How well an epoch is shuffled."""

    displacement: float
    """Mean distance of a document from its place in the corpus, as a share of the corpus; 1/3 for a
    uniform shuffle."""
    entropy: float
    """Mean entropy of the sources of a global batch, in nats; the corpus is cut into consecutive
    sources of the same size."""
    batch_neighbors: float
    """Share of the pairs of successive documents of the corpus that are read in the same batch."""
    window_neighbors: float
    """Share of the pairs of successive documents that are read in the same window."""


class Pieces:
    """The documents of a reading, cut at the borders of its windows."""

    def __init__(self, corpus: Simulated, reading: Reading) -> None:
        lengths = corpus.lengths[reading.documents]
        ends = np.cumsum(lengths)
        starts = ends - lengths
        first, last = starts // WINDOW, (ends - 1) // WINDOW
        counts = last - first + 1
        part = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        window = np.repeat(first, counts) + part
        self.document: Ints = np.repeat(reading.documents, counts)
        self.tokens: Ints = np.minimum(np.repeat(ends, counts), (window + 1) * WINDOW) - np.maximum(
            np.repeat(starts, counts), window * WINDOW
        )
        places = np.empty(len(reading.windows), dtype=np.int64)
        places[reading.windows] = np.arange(len(places))
        self.place: Ints = places[window]
        """Place of delivery of its window."""
        self.delivered: Ints = places[first] * WINDOW + starts % WINDOW
        """First token of each document in the epoch, in the order of the reading."""


def judge(corpus: Simulated, reading: Reading) -> Quality:
    """Return the quality of one order."""
    pieces = Pieces(corpus, reading)
    moved = np.abs(pieces.delivered - corpus.starts[reading.documents])
    source = corpus.starts[pieces.document] * SOURCES // corpus.tokens
    batch = pieces.place // BATCH
    batches = corpus.windows // BATCH
    held = np.bincount(batch * SOURCES + source, pieces.tokens, batches * SOURCES)
    shares = held.reshape(batches, SOURCES) / (BATCH * WINDOW)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return Quality(
        displacement=float(moved.mean() / corpus.tokens),
        entropy=abs(float((shares * logs).sum(axis=1).mean())),
        batch_neighbors=together(pieces.document, batch),
        window_neighbors=together(pieces.document, pieces.place),
    )


def together(document: Ints, group: Ints) -> float:
    """Return the share of pairs of successive documents that are in the same group."""
    groups, documents = int(group.max()) + 1, int(document.max()) + 1
    keys = np.unique(document * groups + group)
    meeting = keys[np.isin(keys + groups, keys, assume_unique=True)]
    return len(np.unique(meeting // groups)) / (documents - 1)


def tabulate(corpus: Simulated) -> dict[str, Quality]:
    """Compute the quality of the orders of the table and print it."""
    found, rows = {}, []
    best = judge(corpus, all_windows(corpus)).entropy
    for name, order in TABLE.items():
        reading = order(corpus)
        found[name] = quality = judge(corpus, reading)
        rows.append(
            [
                name,
                f"{reading.mixed / 1e6:.2f}",
                f"{quality.displacement:.3f}",
                f"{quality.entropy / best:.3f}",
                f"{quality.batch_neighbors:.2%}",
                f"{quality.window_neighbors:.2%}",
            ]
        )
    print(
        f"{SHARDS} shards, {corpus.tokens / 1e6:.0f} M tokens, {len(corpus.lengths):,} documents; "
        f"windows of {WINDOW:,} tokens, batches of {BATCH}, {SOURCES} sources\n"
    )
    columns = ["order", "mixed, M tokens", "displacement", "entropy of sources"]
    print(table([*columns, "neighbors in a batch", "in a window"], rows), flush=True)
    return found


def draw(corpus: Simulated, path: Path) -> None:
    """Draw entropy and neighbors over the text that a shuffle chooses from."""
    lines = {}
    for name, series in SERIES.items():
        readings = [order(corpus) for order in series]
        lines[name] = [(reading.mixed / 1e6, judge(corpus, reading)) for reading in readings]
    levels = {name: judge(corpus, TABLE[name](corpus)) for name in LEVELS}
    best = levels["all windows shuffled"].entropy
    panels = (
        (
            "Entropy of the sources in a batch,\nrelative to a shuffle of all windows",
            "entropy",
            best,
        ),
        ("Neighboring documents that meet in a batch,\nshare of all", "batch_neighbors", 1.0),
    )
    style = {"svg.fonttype": "none", "svg.hashsalt": "shuffling", "font.size": 9.5}
    with matplotlib.rc_context({**style, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.5, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        for axes, (title, field, scale) in zip((left, right), panels, strict=True):
            for (name, points), look in zip(lines.items(), LOOKS, strict=True):
                xs = [mixed for mixed, _ in points]
                ys = [getattr(quality, field) / scale for _, quality in points]
                color, marker, dashes = look
                axes.plot(xs, ys, dashes, color=color, marker=marker, markersize=4.5, label=name)
            for name, dashes in LEVELS.items():
                level = getattr(levels[name], field) / scale
                axes.axhline(level, color="black", linestyle=dashes, linewidth=1, label=name)
            axes.set_xscale("log")
            axes.set_xlabel("Text mixed at a time, million tokens")
            axes.set_title(title, fontsize=9.5)
            axes.grid(alpha=0.3)
        left.set_ylim(-0.04, 1.06)
        right.set_yscale("log")
        for axes in (left, right):
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        right.yaxis.set_major_formatter(PercentFormatter(1.0))
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
        )
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--figure", type=Path, help="draw it: .svg or .png")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    entries = header(("numpy",))
    print_header(entries)
    corpus = Simulated()
    found = {name: quality._asdict() for name, quality in tabulate(corpus).items()}
    if options.figure:
        draw(corpus, options.figure)
    if options.json:
        options.json.write_text(json.dumps({"header": entries, "orders": found}, indent=1))


if __name__ == "__main__":
    main()
