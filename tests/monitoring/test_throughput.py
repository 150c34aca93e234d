"""Speeds, utilization, percentiles and stragglers, worked by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from megapt.distributed.ranks import Ranks
from megapt.monitoring.peaks import data_sheet_peak, device_peak
from megapt.monitoring.throughput import (
    StepTimes,
    Stopwatch,
    Throughput,
    percentile,
    utilization,
)
from tests.ranks import run_ranks
from tests.training.runs import ALONE

BEFORE = {
    "raw_tokens": 100.0,
    "positions": 120.0,
    "targets": 10.0,
    "model_flops": 1e6,
    "wall_clock": 2.0,
}
AFTER = {
    "raw_tokens": 500.0,
    "positions": 600.0,
    "targets": 50.0,
    "model_flops": 9e6,
    "wall_clock": 6.0,
}
BUSY = StepTimes(data=0.5, compute=1.0, other=0.5)


def test_speeds_are_those_since_the_last_record() -> None:
    throughput = Throughput(ALONE, 1e6, BEFORE)
    for _ in range(2):
        throughput.add(BUSY)
    throughput.pause("validation", 3.0)
    figures = throughput.record(AFTER)
    assert figures.pop("memory") > 2**20
    assert figures == {
        "seconds": 4.0,
        "tokens_per_second": 100.0,
        "positions_per_second": 120.0,
        "targets_per_second": 10.0,
        "utilization": 2.0,
        "data_share": 0.25,
        "step_p50": 2.0,
        "step_p90": 2.0,
        "step_p99": 2.0,
        "step_max": 2.0,
        "validation_seconds": 3.0,
        "checkpoint_seconds": 0.0,
    }
    throughput.add(StepTimes(0.0, 1.0, 0.0))
    again = throughput.record({**AFTER, "raw_tokens": 510.0, "wall_clock": 7.0})
    assert again["tokens_per_second"] == 10.0
    assert again["utilization"] == again["data_share"] == again["validation_seconds"] == 0.0
    assert again["step_max"] == 1.0


def test_without_a_peak_there_is_no_utilization() -> None:
    throughput = Throughput(ALONE, None, BEFORE)
    throughput.add(BUSY)
    assert "utilization" not in throughput.record(AFTER)


def test_utilization_by_hand() -> None:
    """A model of 1e9 parameters reads 1,000 tokens a second on each of 4 devices of 100 TFLOPS.

    6 FLOPs a parameter and token: 6e9 * 4000 = 2.4e13 a second of 4e14.
    """
    assert utilization(6e9 * 4000 * 10, 10.0, 4, 1e14) == pytest.approx(0.06)
    assert utilization(1.0, 0.0, 4, 1e14) == 0.0


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 5.0), (0.9, 9.0), (0.91, 10.0), (0.99, 10.0), (0.0, 1.0)]
)
def test_percentiles_are_values_that_occurred(share: float, expected: float) -> None:
    assert percentile([float(n) for n in (3, 1, 2, 10, 9, 8, 4, 5, 6, 7)], share) == expected
    assert percentile([4.0], share) == 4.0


def uneven(ranks: Ranks) -> dict[str, Any]:
    """Rank 2 of 3 takes twice as long for its data and its own work; all wait for it."""
    throughput = Throughput(ranks, None, BEFORE)
    slow = 2.0 if ranks.rank == 2 else 1.0
    for _ in range(3):
        throughput.add(StepTimes(0.1 * slow, 0.3 * slow, 1.0 - 0.4 * slow))
    return throughput.record(AFTER)


def test_the_slowest_rank_is_named() -> None:
    results = run_ranks(3, uneven)
    for figures in results:
        assert figures["slowest_rank"] == 2
        assert figures["slowest_ratio"] == pytest.approx(2.0)
        assert figures["slowest_host"]
        # The first rank waits for the second's data: its steps are as long.
        assert figures["data_share"] == pytest.approx(0.2)
    assert len({figures["memory"] for figures in results}) == 1


def test_a_stopwatch_counts_what_is_inside() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch.running():
            time.sleep(0.01)
        time.sleep(0.2)
    assert 0.02 <= watch.read() < 0.4
    assert watch.read() == 0.0


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H100 PCIe", "bf16", 756.5),
        ("NVIDIA H100 NVL", "fp16", 835.5),
        ("NVIDIA H200", "bf16", 989.5),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA A100-PCIE-40GB", "fp32", 19.5),
        ("NVIDIA L40S", "bf16", 362.05),
        ("Tesla V100-SXM2-16GB", "fp16", 125.0),
        ("Tesla V100-PCIE-16GB", "fp32", 14.0),
        ("NVIDIA B200", "bf16", 2250.0),
        ("NVIDIA GB200", "fp32", 80.0),
    ],
)
def test_peaks_of_data_sheets(name: str, precision: str, tera: float) -> None:
    assert data_sheet_peak(name, precision) == pytest.approx(tera * 1e12)


def test_peaks_that_are_not_known() -> None:
    assert data_sheet_peak("NVIDIA GeForce RTX 3060", "bf16") is None
    assert data_sheet_peak("Tesla V100-SXM2-16GB", "bf16") is None
    assert device_peak(torch.device("cpu"), "fp32") is None
