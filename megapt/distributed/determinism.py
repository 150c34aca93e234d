"""Deterministic kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Switch torch's deterministic kernels on (`wanted`) or off inside the context.

    cuBLAS fixes its workspace at the first matrix product of the process, so
    `CUBLAS_WORKSPACE_CONFIG` stays set.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    cudnn.deterministic = wanted
    cudnn.benchmark = cudnn.benchmark and not wanted
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
