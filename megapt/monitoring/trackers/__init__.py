"""The trackers that receive the records of a run, one module each."""

from megapt.monitoring.trackers.base import Start, Tracker
from megapt.monitoring.trackers.trackers import (
    TRACKERS,
    Trackers,
    check_trackers,
    find_trackers,
)

__all__ = ["TRACKERS", "Start", "Tracker", "Trackers", "check_trackers", "find_trackers"]
