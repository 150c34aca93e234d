"""Makes the files of a corpus available as local files whose content has been checked."""

from megapt.data.reading.location import Location
from megapt.data.reading.opening import open_location
from megapt.data.reading.store import ShardStore

__all__ = ["Location", "ShardStore", "open_location"]
