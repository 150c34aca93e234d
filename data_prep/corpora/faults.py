"""The faults that the check of a corpus reports."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Fault(NamedTuple):
    """A single fault of a corpus."""

    file: str
    """Name of the file."""
    block: int | None
    """Number of the block in its split, or None if the fault concerns the whole file."""
    what: str
    """What is wrong."""

    def __str__(self) -> str:
        place = self.file if self.block is None else f"{self.file}: block {self.block}"
        return f"{place}: {self.what}"


@dataclass
class Verdict:
    """What `verify_corpus` found."""

    faults: list[Fault] = field(default_factory=list)
    """All faults; empty if the corpus is sound."""
    notes: list[str] = field(default_factory=list)
    """Harmless oddities, such as a file that does not belong to the corpus."""
    fingerprint: str = ""
    """The fingerprint in the manifest."""
    shards: int = 0
    """Number of shards that were read."""
    documents: int = 0
    """Number of documents according to the manifest."""
    tokens: int = 0
    """Number of tokens according to the manifest."""

    def add(self, file: str, what: str) -> None:
        """Add a fault that concerns a whole file."""
        self.faults.append(Fault(file, None, what))
