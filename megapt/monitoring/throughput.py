"""Speed of a run: tokens per second, model-FLOPs utilization, step times, stragglers, memory."""

from __future__ import annotations

import math
import resource
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from megapt.distributed.ranks import Ranks

_COUNTED = {"raw_tokens": "tokens", "positions": "positions", "targets": "targets"}


@dataclass(frozen=True)
class StepTimes:
    """How this rank spent the seconds of one step."""

    data: float
    """Seconds until it had its own micro-batches, without waiting for other ranks."""
    compute: float
    """Seconds of its forward passes, which wait for other ranks only if parameters are sharded."""
    other: float
    """Remaining seconds: backward passes, reductions, the update, waiting for other ranks."""

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return self.data + self.compute + self.other


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


class Stopwatch:
    """Measures the seconds that a device works, without waiting for it.

    Args:
        device: device to time: CUDA by events in its stream, a CPU by the clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Add the seconds of the work inside."""
        if self._cuda:
            begin, end = _event(), _event()
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
        else:
            began = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - began

    def read(self) -> float:
        """Return the seconds since the last reading, and reset them.

        On CUDA this waits for the timed work. Call it after the update: the host has waited for
        the gradient norm by then.
        """
        for begin, end in self._events:
            end.synchronize()
            self._seconds += begin.elapsed_time(end) / 1000.0
        seconds, self._seconds = self._seconds, 0.0
        self._events.clear()
        return seconds


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile: the smallest value with `share` of all at or below it."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def utilization(flops: float, seconds: float, ranks: int, peak: float) -> float:
    """Return the model-FLOPs utilization (MFU), between 0 and 1.

    flops / (seconds * ranks * peak): the model FLOPs (`megapt.model.flops`) divided by what the
    devices could compute in this time (Chowdhery et al. 2022, appendix B). Recomputation in the
    backward pass does not count.

    Args:
        flops: model FLOPs of all ranks together.
        seconds: seconds of training steps.
        ranks: number of devices.
        peak: FLOPs per second of one device.
    """
    return flops / (seconds * ranks * peak) if seconds > 0 else 0.0


def _peak_memory(device: torch.device) -> float:
    """Return the peak memory of this rank in bytes: of its GPU, or of its process on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


class Throughput:
    """Sums up the steps between two records. Each rank has one.

    Args:
        ranks: ranks of the job.
        peak: FLOPs per second of one rank's device; None if unknown.
        spent: amounts spent on the budget axes at the beginning.
    """

    def __init__(self, ranks: Ranks, peak: float | None, spent: Mapping[str, float]) -> None:
        self._ranks = ranks
        self._peak = peak
        self._before = dict(spent)
        self._hosts: list[str] = ranks.gather(socket.gethostname())
        self._steps: list[StepTimes] = []
        self._pauses = {"validation": 0.0, "checkpoint": 0.0}

    def add(self, step: StepTimes) -> None:
        """Add one step of this rank."""
        self._steps.append(step)

    def pause(self, doing: str, seconds: float) -> None:
        """Add seconds between steps, spent on "validation" or "checkpoint"."""
        self._pauses[doing] = self._pauses.get(doing, 0.0) + seconds

    def record(self, spent: Mapping[str, float]) -> dict[str, Any]:
        """Return the speed since the last record, and reset it. All ranks call together.

        Args:
            spent: amounts spent on the budget axes now.

        Returns:
            Tokens, positions and targets per second of training; `utilization`, if the peak is
            known; `data_share`, the share of time that the rank with the longest wait waited for
            data; step times of the first rank; seconds of validations and checkpoints; `memory`,
            the peak bytes of any rank so far; with several ranks also the slowest rank, its host,
            and the ratio of its seconds to the median.
        """
        table = self._gather()
        grown = {axis: amount - self._before.get(axis, 0.0) for axis, amount in spent.items()}
        seconds = grown["wall_clock"]
        figures: dict[str, Any] = {"seconds": seconds}
        for axis, name in _COUNTED.items():
            figures[f"{name}_per_second"] = grown[axis] / seconds if seconds > 0 else 0.0
        if self._peak is not None:
            flops = grown["model_flops"]
            figures["utilization"] = utilization(flops, seconds, self._ranks.world, self._peak)
        totals = [step.total for step in self._steps]
        if totals:
            figures["data_share"] = max(data for data, _, _ in table) / max(sum(totals), 1e-9)
            for share in (0.5, 0.9, 0.99):
                figures[f"step_p{100 * share:.0f}"] = percentile(totals, share)
            figures["step_max"] = max(totals)
        figures.update({f"{doing}_seconds": spent for doing, spent in self._pauses.items()})
        figures["memory"] = max(memory for _, _, memory in table)
        if self._ranks.world > 1:
            figures.update(self._slowest([data + compute for data, compute, _ in table]))
        self._before = dict(spent)
        self._steps.clear()
        self._pauses = dict.fromkeys(self._pauses, 0.0)
        return figures

    def _gather(self) -> list[tuple[float, float, float]]:
        """Return (seconds for data, seconds of forward passes, peak bytes) of every rank."""
        own = [
            sum(step.data for step in self._steps),
            sum(step.compute for step in self._steps),
            _peak_memory(self._ranks.device),
        ]
        flat = [0.0] * (len(own) * self._ranks.world)
        start = len(own) * self._ranks.rank
        flat[start : start + len(own)] = own
        flat = self._ranks.sum(flat)
        return list(zip(flat[0::3], flat[1::3], flat[2::3], strict=True))

    def _slowest(self, own: Sequence[float]) -> dict[str, Any]:
        """Return the rank with the most seconds of work of its own, without waiting for others."""
        slowest = max(range(len(own)), key=lambda rank: own[rank])
        median = statistics.median(own)
        return {
            "slowest_rank": slowest,
            "slowest_host": self._hosts[slowest],
            "slowest_ratio": own[slowest] / median if median > 0 else 1.0,
        }
