"""Where the records of a run go, one file each."""

from megapt.monitoring.trackers.base import Start, Tracker
from megapt.monitoring.trackers.trackers import (
    TRACKERS,
    Trackers,
    check_trackers,
    find_trackers,
)

__all__ = ["TRACKERS", "Start", "Tracker", "Trackers", "check_trackers", "find_trackers"]
