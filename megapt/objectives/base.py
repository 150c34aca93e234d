"""What an objective is: settings, a pure function from (window, rng) to examples, and heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from megapt.config import Section
from megapt.data import RESERVED, Attention, CounterRng, Example, HeadSpec, Vocabulary, Window
from megapt.data.example import Ints, lay, make_example


class ObjectiveError(ValueError):
    """The objective cannot be used on this corpus; the text says why and what would be right."""


@dataclass(frozen=True)
class Context:
    """What an objective knows of the corpus and of its windows."""

    vocabulary: Vocabulary
    window: int
    """W: no piece is longer, and no position id may reach W + RESERVED."""
    labels: Sequence[str] = ()
    """Names of the document classes; empty if the corpus has none."""
    unlabelled: int = 0
    """Training documents without a class."""


class Objective(ABC):
    """Base of all objectives. A subclass is one file of this folder; its `name` registers it.

    Args:
        config: settings of the class's own `Config`.
        context: the corpus and its windows.

    Raises:
        ObjectiveError: if the corpus lacks what the objective needs.
    """

    name: ClassVar[str]
    """What users type."""
    attention: ClassVar[Attention]
    """What a token may look at; see `Example.visible`."""
    Config: ClassVar[type[Section]]
    """Settings: the section `objective` of a configuration, without its name."""

    def __init__(self, config: Any, context: Context) -> None:
        self.config = config
        self.vocabulary = context.vocabulary
        self.context = context

    @property
    @abstractmethod
    def heads(self) -> tuple[HeadSpec, ...]:
        """The heads and the weights of their losses."""

    @abstractmethod
    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return the examples of a window. Pure: the same (window, rng) give the same examples."""

    def longest_example(self, window: int) -> int:
        """Return how many positions one example may take in windows of W = `window` tokens."""
        return window + RESERVED

    def present(self, tokens: Ints) -> Example:
        """Return uncorrupted text as this objective's trunk is used to seeing it, no targets.

        It stands between [CLS] and [SEP]; text tokens are positions 1 to n in every objective.
        """
        v = self.vocabulary
        return make_example(lay(v.cls, tokens, v.sep), "bidirectional", {})

    def prompt(self, tokens: Ints) -> Example | None:
        """Return the example whose last state predicts the first generated token.

        None if the objective cannot generate.
        """
        return None
