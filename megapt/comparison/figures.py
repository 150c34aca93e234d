"""The figures of a report, as SVG inside the page."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from megapt.comparison.results import MeasureRecord, Results
from megapt.comparison.summary import in_unit
from megapt.config.section import Axis

AXES: dict[Axis, str] = {
    "raw_tokens": "Raw tokens",
    "positions": "Positions",
    "targets": "Targets",
    "model_flops": "Model FLOPs",
    "wall_clock": "Training time",
}

_WIDTH = 7.5  # Inches of 72 points; the page shows a figure 720 CSS pixels wide.
_INK = "#012345"  # Replaced by the page's text color, which is different in dark mode.
# Okabe & Ito 2008, safe for color-blind readers; without black and the pale yellow.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # With 6 colors: pairs repeat after 42 members.
_LINES = ("--", "-.", (0, (1, 3)))  # Of baselines; the untrained trunk is dotted.
_STYLE = {
    # Keep text as text: browsers have fonts for Chinese, matplotlib's font has no such glyphs.
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK
    ),
}


@contextmanager
def _style() -> Iterator[None]:
    """Apply the style of the figures, independent of the user's matplotlibrc."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _svg(figure: Figure, label: str) -> str:
    """Return `figure` as an element of the page; equal figures give equal bytes."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Ids of shapes are hashes: the same in every run, and different in every figure of a page.
    matplotlib.rcParams["svg.hashsalt"] = label
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    found = re.search(r'<svg[^>]*(viewBox="[^"]*")[^>]*>(.*)</svg>', stream.getvalue(), re.DOTALL)
    assert found is not None
    # Ids of groups repeat across figures, and nothing refers to them.
    drawing = re.sub(r'<g id="[^"]*"', "<g", found[2]).replace(_INK, "currentColor")
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {spaces} role="img" aria-label="{html.escape(label)}" {found[1]}>{drawing}</svg>'


def _scaled(value: float, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if value < 999.5:
            return f"{value:.3g} {unit}".rstrip()
        value /= 1000
    return f"{value:.3g} {units[-1]}"


def amount(axis: Axis, value: float) -> str:
    """Return an amount on a budget axis with three digits and a unit: 1.23 M, 45.6 TFLOP, 12 s."""
    if axis == "model_flops":
        return _scaled(value, [f"{prefix}FLOP" for prefix in ("", *"kMGTPEZY")])
    if axis == "wall_clock":
        for unit, seconds in (("h", 3600), ("min", 60)):
            if value >= 2 * seconds:
                return f"{value / seconds:.3g} {unit}"
        return f"{value:.3g} s"
    return _scaled(value, ("", "k", "M", "B", "T"))


def learning_curves(results: Results) -> str:
    """Return validation loss / unigram loss over the spent budget, on the axis of the budget."""
    axis: Axis = results.budget_axis
    with _style():
        figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.axhline(1.0, color=_INK, linestyle="--", linewidth=1, label="unigram")
        for i, member in enumerate(results.members):
            axes.plot(
                [getattr(point, axis) for point in member.curve],
                [point.loss / member.unigram_loss for point in member.curve],
                color=_COLORS[i % len(_COLORS)],
                marker=_MARKERS[i % len(_MARKERS)],
                markersize=4,
                label=member.name,
            )
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(axis, value)))
        axes.set_xlabel(AXES[axis])
        axes.set_ylabel("Validation loss / unigram loss")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
        ends = [
            f"{member.name} {member.curve[-1].loss / member.unigram_loss:.3f}"
            for member in results.members
            if member.curve
        ]
        return _svg(
            figure, "Learning curves. Last validation loss / unigram loss: " + ", ".join(ends)
        )


def measured(results: Results, measure: MeasureRecord) -> str:
    """Return the scores of all members that have one, with their intervals and the baselines."""
    answered = [
        (i, member.name, member.scores[measure.name])
        for i, member in enumerate(results.members)
        if measure.name in member.scores
    ]
    names = [name for _, name, _ in answered]
    with _style():
        figure = Figure(figsize=(_WIDTH, 1.3 + 0.34 * len(answered)), layout="constrained")
        axes = figure.subplots()
        for (name, value), style in zip(measure.baselines.items(), cycle(_LINES)):
            axes.axvline(value, color=_INK, ls=style, lw=1, label=name)
        if (untrained := measure.untrained) is not None:
            axes.axvline(untrained.value, color=_INK, ls=":", lw=1.5, label="untrained trunk")
            if untrained.interval is not None:
                axes.axvspan(*untrained.interval, color=_INK, alpha=0.12, lw=0)
        for row, (i, _, score) in enumerate(answered):
            color = _COLORS[i % len(_COLORS)]
            if score.interval is not None:
                axes.plot(score.interval, (row, row), color=color, lw=2)
            axes.plot(score.value, row, color=color, marker=_MARKERS[i % len(_MARKERS)])
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        label = measure.title
        if measure.unit == "share":
            axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        elif measure.unit:
            label += f", {measure.unit}"
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
        if measure.baselines or untrained is not None:
            figure.legend(loc="outside upper right", ncols=2, frameon=False)
        values = [f"{name} {in_unit(score.value, measure.unit)}" for _, name, score in answered]
        with_intervals = all(score.interval is not None for _, _, score in answered)
        title = f"{measure.title} with 95 % intervals" if with_intervals else measure.title
        return _svg(figure, f"{title}: {', '.join(values)}")


def budgets(results: Results) -> str:
    """Return what every member spent on the five axes, relative to the largest."""
    names = [member.name for member in results.members]
    colors = [_COLORS[i % len(_COLORS)] for i in range(len(names))]
    with _style():
        figure = Figure(figsize=(_WIDTH, 0.5 + 0.42 * len(names)), layout="constrained")
        columns = figure.subplots(1, len(AXES), sharey=True)
        columns[0].set_yticks(range(len(names)), names)
        columns[0].set_ylim(len(names) - 0.6, -0.8)
        for column, (axis, title) in zip(columns, AXES.items(), strict=True):
            spent = [getattr(member.budget, axis) for member in results.members]
            largest = max(spent) or 1.0
            column.barh(range(len(names)), [value / largest for value in spent], 0.4, color=colors)
            for row, value in enumerate(spent):
                column.text(0.02, row - 0.27, amount(axis, value), fontsize=8.5)
            column.set_title(title, fontsize=9.5)
            column.set_xlim(0, 1)
            column.set_xticks([])
            column.tick_params(left=False)
            column.spines["bottom"].set_visible(False)
        return _svg(figure, "What each member spent on the five budget axes; see the table Budget")
