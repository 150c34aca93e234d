"""Windows of several corpora in one sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from megapt.data.example import Ints, Window
from megapt.data.mixture import Mixture
from megapt.data.state import Skipped, WindowId, join_skipped
from megapt.data.stream import WindowStream

Read = TypeVar("Read")


class MixtureStream:
    """The windows of several streams in the order of a mixture.

    Each corpus keeps its own order: the mixture only decides which corpus is next.

    Args:
        streams: name of each corpus of the mixture -> its windows.
        mixture: decides which corpus each window comes from.
        identity: the parameters of the mixture, as JSON values.
    """

    def __init__(
        self, streams: Mapping[str, WindowStream], mixture: Mixture, identity: Any
    ) -> None:
        self._names = list(streams)
        self._streams = list(streams.values())
        self._mixture = mixture
        first = self._streams[0]
        self.name = first.name
        self.window_size = first.window_size
        self.count = sum(stream.count for stream in self._streams)
        self.total = mixture.total
        self.keys = tuple(stream.keys[0] for stream in self._streams)
        common = {key: value for key, value in first.identity.items() if key != "fingerprint"}
        self.identity: dict[str, Any] = {
            **common,
            "fingerprint": {name: s.identity["fingerprint"] for name, s in streams.items()},
            "mixture": identity,
        }

    @property
    def skipped(self) -> Skipped:
        """Shards that this process skips."""
        return join_skipped(stream.skipped for stream in self._streams)

    def skip(self, skipped: Skipped) -> None:
        """Skip these shards from the start."""
        for stream in self._streams:
            stream.skip(skipped)

    def epochs(self, windows: int) -> dict[str, float]:
        """Return how often each corpus has been read after `windows` windows."""
        epochs = self._mixture.epochs(windows).tolist()
        return {f"epoch/{name}": read for name, read in zip(self._names, epochs, strict=True)}

    def lanes(self, numbers: Ints) -> Ints:
        """Return the lane that reads each window, int64 [n]; all corpora share the lanes."""
        _, own = self._mixture.locate(numbers.astype(np.int64, copy=False))
        lanes: Ints = own % self._streams[0].order.lanes
        return lanes

    def ids(self, numbers: Sequence[int]) -> list[WindowId]:
        """Return the identity of each window."""
        own = self._each(numbers, lambda stream, number: stream.ids([number])[0])
        return [(n, key, e, i) for n, (_, key, e, i) in zip(numbers, own, strict=True)]

    def windows(self, numbers: Sequence[int]) -> list[Window]:
        """Read windows."""
        return self._each(numbers, lambda stream, number: stream.windows([number])[0])

    def text(self, numbers: Sequence[int]) -> tuple[NDArray[Any], Ints]:
        """Read only the tokens of windows; see `WindowStream.text`."""
        texts = self._each(numbers, lambda stream, number: stream.text([number]))
        lengths = [np.diff(starts) for _, starts in texts]
        tokens = np.concatenate([np.zeros(0, dtype=np.uint16), *(tokens for tokens, _ in texts)])
        return tokens, np.cumsum(np.concatenate([np.zeros(1, dtype=np.int64), *lengths]))

    def _each(
        self, numbers: Sequence[int], read: Callable[[WindowStream, int], Read]
    ) -> list[Read]:
        corpora, own = self._mixture.locate(np.asarray(numbers, dtype=np.int64))
        return [
            read(self._streams[corpus], number)
            for corpus, number in zip(corpora.tolist(), own.tolist(), strict=True)
        ]
