"""What is dear to make is made by one of pytest's processes, for all of them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name`, which `make` fills where it is first asked for.

    The other processes wait meanwhile. A folder that `make` failed to fill is made again, beside.
    """
    own = factory.getbasetemp()
    shared = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "once"
    shared.mkdir(exist_ok=True)
    link = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not link.is_symlink():
            folder = factory.mktemp(name)
            make(folder)
            link.symlink_to(folder)
    return link.resolve()
