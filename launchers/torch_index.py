"""Prints pip's options for the right build of PyTorch: `python3 launchers/torch_index.py`.

The Linux wheels of torch on PyPI require gigabytes of CUDA packages. On a machine without an NVIDIA
driver, the options name PyTorch's index of CPU builds, if it can be reached; otherwise pip uses its
configured index. This script needs only the standard library, since it runs before any install.
"""

from __future__ import annotations

import platform
import shutil
import urllib.request

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_SECONDS = 5.0
"""Timeout of one request."""


def reachable(url: str, seconds: float = _SECONDS) -> bool:
    """Return whether `url` answers within `seconds`."""
    try:
        with urllib.request.urlopen(url, timeout=seconds):
            return True
    except OSError:
        return False


def pip_options(system: str, driver: bool, index: str = CPU_INDEX) -> list[str]:
    """Return the options of pip.

    Args:
        system: name of the operating system, as `platform.system` returns it.
        driver: whether the machine has an NVIDIA driver.
        index: index of the CPU builds.
    """
    if system != "Linux" or driver or not reachable(f"{index}/torch/"):
        return []
    # The local version 2.x.y+cpu of this index sorts above 2.x.y, so pip prefers it.
    return ["--extra-index-url", index]


if __name__ == "__main__":
    print(*pip_options(platform.system(), shutil.which("nvidia-smi") is not None))
