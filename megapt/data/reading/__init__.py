"""Brings the files of a corpus to where they can be mapped, and lets no damaged byte through."""

from megapt.data.reading.location import Location
from megapt.data.reading.opening import open_location
from megapt.data.reading.store import ShardStore

__all__ = ["Location", "ShardStore", "open_location"]
