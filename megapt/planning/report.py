"""A plan as lines of text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from megapt.distributed.footprint import Footprint
from megapt.planning.plan import Plan

_PARTS = ("weights", "optimizer", "gradients", "buffers", "activations", "temporary")


def _large(value: float) -> str:
    """Return a count with three digits and a letter: 1.23B."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _gigabytes(value: float) -> str:
    return f"{value / 1e9:.2f}"


def duration(seconds: float) -> str:
    """Return a time in a suitable unit."""
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.3g} seconds"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _memory_table(plan: Plan, micro_batch_size: int) -> Iterator[str]:
    yield (
        f"Memory of a rank in GB, at its peak, with micro_batch_size {micro_batch_size}; "
        f"{_gigabytes(plan.usable)} of {_gigabytes(plan.device.memory)} are usable"
    )
    head = ["stage", *_PARTS, "peak", "at", "start", "host", "largest micro_batch_size"]
    rows = [head]
    for stage in plan.stages:
        found = stage.footprint
        parts = [_gigabytes(found.parts.get(part, 0.0)) for part in _PARTS]
        ends = [found.moment, _gigabytes(found.start), _gigabytes(found.host)]
        largest = str(stage.largest) if stage.largest else "none fits"
        rows.append([str(found.stage), *parts, _gigabytes(found.total), *ends, largest])
    yield from _columns(rows)


def lines(plan: Plan, micro_batch_size: int) -> Iterator[str]:
    """Yield the plan as lines of text.

    Args:
        plan: the plan.
        micro_batch_size: the micro-batch of the configuration.
    """
    total = sum(plan.parameters.values())
    parts = ", ".join(f"{part} {_large(count)}" for part, count in plan.parameters.items() if count)
    yield f"Parameters  {_large(total)}: {parts}"
    yield (
        f"Raw token   {_large(plan.flops)} model FLOPs, {plan.positions:.3f} positions, "
        f"{plan.targets:.3f} targets"
    )
    yield f"Cluster     {plan.ranks:,} ranks, {plan.device.name}"
    yield ""
    yield from _memory_table(plan, micro_batch_size)
    trace = plan.activations
    yield (
        f"Activations at most {_gigabytes(trace.most)}: {_gigabytes(trace.trunk)} that the trunk "
        f"keeps, {_gigabytes(trace.head)} more in the heads"
    )
    yield ""
    yield f"Recommended {' '.join(plan.settings.words())}"
    yield f"Memory      {_gigabytes(plan.memory.total)} GB a rank"
    how = "overlapped" if plan.step.overlapped else "not overlapped"
    yield (
        f"Step        {duration(plan.step.total)}: computing {duration(plan.step.compute)}, "
        f"communication {duration(plan.step.communication)}, {how}"
    )
    price = f", {plan.cost:,.0f} at {plan.device.price:g} per hour" if plan.device.price else ""
    yield (
        f"Run         {plan.steps:,.0f} steps, {_large(plan.tokens)} raw tokens, "
        f"{duration(plan.seconds)}{price}"
    )
    yield (
        f"Checkpoint  {_gigabytes(plan.checkpoint_bytes)} GB, written in "
        f"{duration(plan.checkpoint_seconds)}; with a fault every {duration(plan.fault_seconds)}, "
        f"one every {plan.settings.checkpoint_every:,} steps loses least"
    )


def _footprint(found: Footprint) -> dict[str, Any]:
    return {
        "stage": found.stage,
        **{part: found.parts.get(part, 0.0) for part in _PARTS},
        "peak": found.total,
        "at": found.moment,
        "start": found.start,
        "host": found.host,
    }


def plan_as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan in bytes, seconds and counts, as values for JSON."""
    return {
        "parameters": {"total": sum(plan.parameters.values()), **plan.parameters},
        "raw_token": {
            "model_flops": plan.flops,
            "positions": plan.positions,
            "targets": plan.targets,
        },
        "ranks": plan.ranks,
        "device": plan.device.model_dump(),
        "stages": [
            {**_footprint(stage.footprint), "largest_micro_batch": stage.largest}
            for stage in plan.stages
        ],
        "activations": {
            "most": plan.activations.most,
            "trunk": plan.activations.trunk,
            "head": plan.activations.head,
        },
        "recommended": {
            "words": plan.settings.words(),
            **_footprint(plan.memory),
        },
        "step_seconds": {
            "total": plan.step.total,
            "compute": plan.step.compute,
            "communication": plan.step.communication,
        },
        "run": {
            "steps": plan.steps,
            "raw_tokens": plan.tokens,
            "seconds": plan.seconds,
            "cost": plan.cost,
        },
        "checkpoint": {
            "bytes": plan.checkpoint_bytes,
            "seconds": plan.checkpoint_seconds,
            "fault_seconds": plan.fault_seconds,
            "every": plan.settings.checkpoint_every,
        },
    }
