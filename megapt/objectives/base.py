"""What an objective is: settings, a pure function from (window, rng) to examples, and heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from megapt.config import Origins, Section, validate
from megapt.data import (
    RESERVED,
    Attention,
    CounterRng,
    Example,
    HeadSpec,
    Targets,
    Vocabulary,
    Window,
)
from megapt.data.example import HeadKind, HeadRole, Ints, concatenate, make_example

SAMPLE_PROMPT = 16
"""Tokens of a text that a sample continues."""


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
    unlabeled: int = 0
    """Training documents without a class."""
    label_counts: Sequence[int] = ()
    """Training documents of each class; empty if unknown."""
    documents: int = 0
    """Training documents; 0 if unknown."""
    tokens: int = 0
    """Tokens of training text; 0 if unknown."""
    steps: int | None = None
    """Updates that the run plans: those that the budget pays for. None if it is not in raw tokens,
    because then the text of a step is not known beforehand."""


@dataclass(frozen=True)
class Cost:
    """What a text costs in one objective, on average over its draws."""

    positions: float
    targets: float


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
    attention: Attention
    """What a token may look at; see `Example.visible`."""
    segments: int = 2
    """How many segments its examples tell apart: their segment ids are below this. 0 if all ids are
    0, which tell nothing."""
    rewrites: bool = False
    """Whether a prompt is answered by the whole text, rather than by what follows it."""
    Config: ClassVar[type[Section]]
    """Settings: the section `objective` of a configuration, without its name."""

    def __init__(self, config: Any, context: Context) -> None:
        self.config = config
        self.vocabulary = context.vocabulary
        self.context = context

    @classmethod
    def build(
        cls, settings: Mapping[str, Any], context: Context, origins: Origins, path: str
    ) -> Objective:
        """Check the settings and return the objective.

        Args:
            settings: the section, without its name.
            context: the corpus and its windows.
            origins: where the settings stand, for errors.
            path: dotted path of the section.

        Raises:
            ConfigError: for a wrong setting.
            ObjectiveError: if the corpus lacks what the objective needs.
        """
        return cls(validate(cls.Config, settings, origins, path), context)

    def leaves(self, path: str) -> Iterator[tuple[str, Objective]]:
        """Yield (dotted path of its section, objective) of all that it is a mixture of."""
        yield path, self

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """The heads and the weights of their losses; unless others are given, one token head."""
        return (HeadSpec("tokens", "token"),)

    def role(self, head: HeadSpec) -> HeadRole:
        """Return what of a text a head of this objective tells; "" if it has a question of its own.

        One over the vocabulary that does not say it tells `masked` if it is a generator, or if
        attention is bidirectional, else `next`.
        """
        if head.role or not head.over_vocabulary:
            return head.role
        here = head.kind == "generator" or self.attention == "bidirectional"
        return "masked" if here else "next"

    def _head(self, kind: HeadKind, role: HeadRole) -> HeadSpec | None:
        found = (head for head in self.heads if head.kind == kind and self.role(head) == role)
        return next(found, None)

    @property
    def next_token_head(self) -> HeadSpec | None:
        """The head that continues what `prompt` returns; None if there is none."""
        return self._head("token", "next")

    @property
    def masked_token_head(self) -> HeadSpec | None:
        """The head that `masked` asks; None if there is none."""
        return self._head("token", "masked")

    @property
    def generates(self) -> bool:
        """Whether it generates: it has a prompt, and a head that continues it."""
        text = np.zeros(1, dtype=np.int64)
        return self.next_token_head is not None and self.prompt(text) is not None

    @property
    def fills_masks(self) -> bool:
        """Whether it fills masks: it shows them, and has a head that is asked there."""
        text = np.zeros(1, dtype=np.int64)
        return self.masked_token_head is not None and self.masked(text) is not None

    @property
    def class_head(self) -> HeadSpec | None:
        """The head that `classified` asks; None if there is none."""
        return self._head("sequence", "class")

    @property
    def uses_labels(self) -> bool:
        """Whether it is told the classes of the documents."""
        return self.class_head is not None

    @abstractmethod
    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return the examples of a window. Pure: the same (window, rng) give the same examples."""

    @abstractmethod
    def cost(self, tokens: int) -> Cost:
        """Return what a whole document of `tokens` tokens, at least 1, costs on average.

        With several examples a text, those of one text together; where texts are paired, as if
        every text found a partner of its own length.
        """

    def longest_example(self, window: int) -> int:
        """Return how many positions one example may take in windows of W = `window` tokens."""
        return window + RESERVED

    def present(self, tokens: Ints) -> Example:
        """Return uncorrupted text as this objective's trunk is used to seeing it, no targets.

        It stands between [CLS] and [SEP]; text tokens are positions 1 to n in every objective.
        """
        v = self.vocabulary
        return make_example(concatenate(v.cls, tokens, v.sep), "bidirectional", {})

    def prompt(self, tokens: Ints) -> Example | None:
        """Return the example whose last state predicts the first generated token.

        None if the objective cannot generate.
        """
        return None

    def sample_prompt(self, tokens: Ints, rng: CounterRng) -> Ints:
        """Return what of a text is handed to `prompt` where samples of the model are shown.

        Its beginning, which is continued; or the text with masks, if that is what is rewritten.
        """
        return tokens[:SAMPLE_PROMPT]

    def classified(self, tokens: Ints) -> Example | None:
        """Return the text, the module of `class_head` asked at [CLS] with label 0.

        None if the objective has no such head.
        """
        if self.class_head is None:
            return None
        anchor = Targets(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
        return replace(self.present(tokens), targets={self.class_head.owner: anchor})

    def masked(self, tokens: Ints) -> Example | None:
        """Return a text with [MASK] tokens, of which the module of `masked_token_head` is asked.

        Labels are 0. None if the objective does not predict masked tokens where they stand.
        """
        return None

    def _asked_at_masks(self, tokens: Ints) -> Example | None:
        """Return what `masked` does for objectives that show text as `present` does here."""
        if self.masked_token_head is None:
            return None
        places = np.flatnonzero(tokens == self.vocabulary.mask)
        asked = Targets(places + 1, np.zeros(len(places), dtype=np.int64))
        return replace(self.present(tokens), targets={self.masked_token_head.owner: asked})
