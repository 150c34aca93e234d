"""Peak FLOPs of devices from their data sheets, for the utilization."""

from __future__ import annotations

import re

import torch

# (pattern of the name that CUDA gives, TFLOPS of 16-bit matrix products, TFLOPS in float32).
# All are dense: if a sheet gives only the number with 2:4 sparsity, half of it. Float32 is without
# tensor cores, as torch computes unless TF32 is allowed. The first pattern that matches is used.
_SHEETS: tuple[tuple[str, float, float | None], ...] = (
    # https://nvdam.widen.net/s/wwnsxrhm2w/blackwell-datasheet-3384703
    (r"GB200", 2500.0, 80.0),
    (r"B200", 2250.0, 75.0),
    # https://www.nvidia.com/en-us/data-center/h200/
    (r"H200", 989.5, 67.0),
    # https://www.nvidia.com/en-us/data-center/h100/ (SXM, NVL) and the PCIe sheet of 2022
    (r"H100 NVL", 835.5, 60.0),
    (r"H100 PCIe", 756.5, 51.0),
    (r"H100", 989.5, 67.0),
    # https://www.nvidia.com/en-us/data-center/a100/
    (r"A100", 312.0, 19.5),
    # https://www.nvidia.com/en-us/data-center/l40s/
    (r"L40S", 362.05, 91.6),
    # https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf
    (r"V100-PCIE", 112.0, 14.0),
    (r"V100", 125.0, 15.7),
)


def data_sheet_peak(name: str, precision: str) -> float | None:
    """Return the dense peak of a GPU in FLOPs per second; None if it is not in the table.

    Args:
        name: name that `torch.cuda.get_device_name` returns.
        precision: "fp32", "bf16" or "fp16".
    """
    for pattern, half, single in _SHEETS:
        if re.search(pattern, name):
            if precision == "bf16" and "V100" in pattern:
                return None  # V100 has no bfloat16.
            tera = single if precision == "fp32" else half
            return None if tera is None else tera * 1e12
    return None


def device_peak(device: torch.device, precision: str) -> float | None:
    """Return the data-sheet peak of a device, FLOPs per second; None for CPUs and unknown GPUs."""
    if device.type != "cuda":
        return None
    return data_sheet_peak(torch.cuda.get_device_name(device), precision)
