"""Lookup and checks of the trackers that a configuration names."""

from __future__ import annotations

from typing import Any

from megapt.config import Origins, RunConfig
from megapt.distributed.ranks import Ranks
from megapt.monitoring.trackers.base import Tracker
from megapt.registry import Registry, part_settings

TRACKERS = Registry("tracker", Tracker, "megapt.monitoring.trackers", "megapt.trackers")  # type: ignore[type-abstract]

Trackers = list[tuple[type[Tracker], Any]]
"""Classes of trackers, each with its checked settings."""


def find_trackers(config: RunConfig, origins: Origins) -> Trackers:
    """Return the trackers that `monitor.trackers` names.

    Raises:
        ConfigError: for an unknown name, a wrong setting, or a Python file that defines no tracker.
    """
    found = []
    for number, section in enumerate(config.monitor.trackers):
        path = f"monitor.trackers.{number}"
        kind = TRACKERS.find(section.name, section.file, origins, path)
        found.append((kind, part_settings(section, kind.Config, origins, path)))
    return found


def check_trackers(trackers: Trackers, ranks: Ranks, origins: Origins) -> None:
    """Refuse trackers that cannot write from the machine of the first rank.

    Raises:
        ConfigError: on every rank, if a tracker cannot write.
    """
    with ranks.shared_errors():
        for number, (kind, own) in enumerate(trackers if ranks.main else []):
            if problem := kind.problem(own):
                raise origins.error(f"monitor.trackers.{number}", f"'{kind.name}': {problem}")
