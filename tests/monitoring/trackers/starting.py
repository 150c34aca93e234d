"""The start of a run, for trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from megapt.checkpoint.run_folder import RunFolder
from megapt.monitoring.metrics import read_metrics
from megapt.monitoring.trackers import Start
from tests.training.runs import run_config


def start(folder: Path, step: int = 0, **sections: Any) -> Start:
    """Of a run in `folder`, whose records up to `step` are kept."""
    config = run_config(folder, folder, **sections)
    records = read_metrics(RunFolder(folder).metrics_file)
    return Start(folder, config, step, [record for record in records if record["step"] <= step])
