"""Measurement of the peak memory of a rank."""

from __future__ import annotations

from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""See proc_pid_clear_refs(5)."""


def _resident(key: str) -> int:
    """Return the resident memory of this process in bytes: VmRSS, or VmHWM, its peak."""
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    raise OSError(f"{_STATUS}: no {key}")


class PeakMemory:
    """Peak memory beyond the memory in use at construction, of the GPU's allocator or the process.

    On a CPU, set MALLOC_MMAP_THRESHOLD_=65536 in the environment. glibc then maps each tensor
    separately and returns freed memory to the system, so that only live tensors are measured.

    Args:
        device: the device of the rank.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        elif self.known:
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
            self._before = _resident("VmRSS")

    @property
    def known(self) -> bool:
        """Whether the system reports the peak; for processes, only Linux does."""
        return self._device.type == "cuda" or _CLEAR.exists()

    def bytes(self) -> int | None:
        """Return the peak since construction, in bytes; None if it is not known."""
        if not self.known:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return _resident("VmHWM") - self._before
