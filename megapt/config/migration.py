"""Stored configurations of earlier versions, brought to the keys of this one."""

from __future__ import annotations

from typing import Any


def migrated(values: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run as this version writes it.

    Args:
        values: of config.yaml in a run folder.
    """
    monitor = values.get("monitor")
    if isinstance(monitor, dict) and "prometheus" in monitor:
        monitor = dict(monitor)
        path = monitor.pop("prometheus")
        added = [] if path is None else [{"name": "prometheus", "path": path}]
        monitor["trackers"] = ["jsonl", "tensorboard", *added]
        values = {**values, "monitor": monitor}
    return values
