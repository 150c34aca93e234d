"""Draws a figure of the statistics of a corpus."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from data_prep.errors import PrepError

FORMATS = (".svg", ".png")

_WIDTH = 7.5  # inches
_BAR = 0.26  # inches
_MAX_BARS = 20
# Okabe & Ito 2008: color-blind readers can distinguish them.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_NEUTRAL = "#7F7F7F"
_BAR_SHARE = 0.7  # of a row
_STYLE = {
    # Text stays text in SVG, so the viewer's fonts are used. In a PNG each character uses the first
    # of these fonts that the machine has.
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Droid Sans Fallback"],
    "svg.hashsalt": "megapt-prep",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def _style() -> Iterator[None]:
    """Apply the style of the figure, independent of the user's matplotlibrc."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.set_loglevel("error")  # matplotlib warns about each missing font
        yield


def check_format(path: Path) -> None:
    """Check that a figure can be written, before anything is read.

    Raises:
        PrepError: the name ends in neither .svg nor .png, or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise PrepError(f"--plot {path}: the name must end in .svg or .png")
    if not path.parent.is_dir():
        raise PrepError(f"--plot {path}: no folder {path.parent}")


def plot_summary(summary: Mapping[str, Any], name: str, path: Path) -> None:
    """Draw the result of `corpus_summary`: lengths, labels, corpora, rejected and changed.

    Args:
        summary: the statistics.
        name: name of the corpus, for the title.
        path: the .svg or .png file; the same figures give the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    splits: Mapping[str, Any] = summary["splits"]
    panels: list[tuple[str, dict[str, list[float]], list[str]]] = []
    for title, field in (("Labels", "labels"), ("Corpora", "corpora")):
        shares = {side: _shares(split, field) for side, split in splits.items()}
        names = list(dict.fromkeys(key for share in shares.values() for key in share))
        if names:
            bars = {side: [share.get(key, 0.0) for key in names] for side, share in shares.items()}
            panels.append((f"{title}, share of the split's documents", bars, names))
    source = max(summary["source_documents"], 1)
    for title, field in (("Rejected", "rejected"), ("Changed", "changed")):
        counts: Mapping[str, int] = summary[field]
        if counts:
            values = [count / source for count in counts.values()]
            panels.append((f"{title}, share of the input's documents", {"": values}, list(counts)))
    panels = [
        (title, {side: values[:_MAX_BARS] for side, values in bars.items()}, names[:_MAX_BARS])
        for title, bars, names in panels
    ]
    heights = [2.4, *(0.3 + _BAR * len(names) * len(bars) ** 0.5 for _, bars, names in panels)]
    with _style():
        figure = Figure(figsize=(_WIDTH, 0.6 + sum(heights)), layout="constrained")
        documents = sum(split["documents"] for split in splits.values())
        tokens = sum(split["tokens"] for split in splits.values())
        figure.suptitle(f"{name}: {documents:,} documents, {tokens:,} tokens")
        rows = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        _draw_lengths(rows[0], splits)
        for axes, (title, bars, names) in zip(rows[1:], panels, strict=True):
            _draw_bars(axes, title, bars, names)
        nothing = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
        kind = path.suffix.removeprefix(".")
        figure.savefig(path, format=kind, dpi=160, metadata=nothing[kind])


def _shares(split: Mapping[str, Any], field: str) -> dict[str, float]:
    """Return the share of the split's documents by label or by corpus; empty without names."""
    if field == "corpora":
        counts = {name: figures["documents"] for name, figures in split[field].items()}
    else:
        counts = dict(split[field])
        if counts and split["unlabeled"]:
            counts["(no label)"] = split["unlabeled"]
    return {name: count / split["documents"] for name, count in counts.items()}


def _draw_lengths(axes: Axes, splits: Mapping[str, Any]) -> None:
    for (side, split), color in zip(splits.items(), _COLORS, strict=False):
        octaves = [int(least) for least in split["length_histogram"]]
        shares = [count / split["documents"] for count in split["length_histogram"].values()]
        edges = [*octaves, 2 * octaves[-1]]
        axes.stairs(shares, edges, color=color, linewidth=1.6, label=side)
        axes.stairs(shares, edges, color=color, fill=True, alpha=0.12)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_ylim(bottom=0)
    axes.set_title("Document lengths, share of the split's documents")
    axes.set_xlabel("Tokens of a document, in powers of two")
    axes.legend(frameon=False)


def _draw_bars(axes: Axes, title: str, bars: Mapping[str, list[float]], names: list[str]) -> None:
    """Draw bars with their values, in the colors of the splits, or gray if there are no splits."""
    colors = _COLORS if len(bars) > 1 or "" not in bars else (_NEUTRAL,)
    height = _BAR_SHARE / len(bars)
    for row, (values, color) in enumerate(zip(bars.values(), colors, strict=False)):
        places = [place + row * height for place in range(len(names))]
        drawn = axes.barh(places, values, 0.9 * height, color=color)
        axes.bar_label(drawn, [f"{value:.2%}" for value in values], padding=3, fontsize=8)
    axes.set_yticks([place + (_BAR_SHARE - height) / 2 for place in range(len(names))], names)
    axes.tick_params(left=False)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xticks([])  # the values are printed at the bars
    axes.spines["bottom"].set_visible(False)
    axes.set_title(title)
