"""The base class of objectives: settings, heads, and a pure function (window, rng) -> examples."""

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
"""Number of leading tokens of a text that form the prompt of a sample."""


class ObjectiveError(ValueError):
    """An objective cannot be used on this corpus; the message says why, and what would be right."""


@dataclass(frozen=True)
class Context:
    """What an objective knows about the corpus and its windows."""

    vocabulary: Vocabulary
    window: int
    """W: maximum number of tokens of a piece. Every position id is below W + RESERVED."""
    labels: Sequence[str] = ()
    """Names of the document classes; empty if the corpus has no classes."""
    unlabeled: int = 0
    """Number of training documents without a class."""
    label_counts: Sequence[int] = ()
    """Number of training documents of each class; empty if unknown."""
    documents: int = 0
    """Number of training documents; 0 if unknown."""
    tokens: int = 0
    """Number of tokens of training text; 0 if unknown."""
    steps: int | None = None
    """Planned updates of the run, from its budget. None if the budget is not in raw tokens: then
    the text of a step is not known in advance."""


@dataclass(frozen=True)
class Cost:
    """Average cost of a text in one objective, over its random draws."""

    positions: float
    """Positions of its examples."""
    targets: float
    """Target positions of its examples."""


class Objective(ABC):
    """Base class of all objectives. A file of this folder defines a subclass; `name` registers it.

    Args:
        config: settings, an instance of the class's own `Config`.
        context: the corpus and its windows.

    Raises:
        ObjectiveError: if the corpus lacks what the objective needs.
    """

    name: ClassVar[str]
    """The name in configurations."""
    attention: Attention
    """Which tokens a token attends to; see `Example.visible`."""
    segments: int = 2
    """Number of segments in its examples: every segment id is below this. 0 if all ids are 0, so
    that they carry no information."""
    rewrites: bool = False
    """Whether the answer to a prompt is the whole rewritten text, not a continuation."""
    Config: ClassVar[type[Section]]
    """Model of the section `objective` of a configuration, without its name."""

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
            origins: where each setting comes from, for error messages.
            path: dotted path of the section.

        Raises:
            ConfigError: for a wrong setting.
            ObjectiveError: if the corpus lacks what the objective needs.
        """
        return cls(validate(cls.Config, settings, origins, path), context)

    def leaves(self, path: str) -> Iterator[tuple[str, Objective]]:
        """Yield (dotted path of its section, objective), for a mixture those of its members."""
        yield path, self

    @property
    def heads(self) -> tuple[HeadSpec, ...]:
        """The heads, with the weights of their losses; by default one token head."""
        return (HeadSpec("tokens", "token"),)

    def role(self, head: HeadSpec) -> HeadRole:
        """Return the role of a head of this objective; "" if it has none.

        A head over the vocabulary that sets no role has the role `masked` if it is a generator or
        if attention is bidirectional, else `next`.
        """
        if head.role or not head.over_vocabulary:
            return head.role
        in_place = head.kind == "generator" or self.attention == "bidirectional"
        return "masked" if in_place else "next"

    def _head(self, kind: HeadKind, role: HeadRole) -> HeadSpec | None:
        found = (head for head in self.heads if head.kind == kind and self.role(head) == role)
        return next(found, None)

    @property
    def next_token_head(self) -> HeadSpec | None:
        """The head that continues the example of `prompt`; None if there is none."""
        return self._head("token", "next")

    @property
    def masked_token_head(self) -> HeadSpec | None:
        """The head whose targets `masked` sets; None if there is none."""
        return self._head("token", "masked")

    @property
    def generates(self) -> bool:
        """Whether the objective can generate: it has a prompt, and a head that continues it."""
        text = np.zeros(1, dtype=np.int64)
        return self.next_token_head is not None and self.prompt(text) is not None

    @property
    def fills_masks(self) -> bool:
        """Whether the objective can fill masks: it has `masked` examples, and a head for them."""
        text = np.zeros(1, dtype=np.int64)
        return self.masked_token_head is not None and self.masked(text) is not None

    @property
    def class_head(self) -> HeadSpec | None:
        """The head whose target `classified` sets; None if there is none."""
        return self._head("sequence", "class")

    @property
    def uses_labels(self) -> bool:
        """Whether the objective trains on the classes of the documents."""
        return self.class_head is not None

    @abstractmethod
    def examples(self, window: Window, rng: CounterRng) -> list[Example]:
        """Return the examples of a window.

        A pure function: the same (window, rng) always give the same examples.
        """

    @abstractmethod
    def cost(self, tokens: int) -> Cost:
        """Return the average cost of a whole document of `tokens` tokens, at least 1.

        The costs of several examples of one text are added. If texts are paired, every text is
        assumed to have a partner of its own length.
        """

    def longest_example(self, window: int) -> int:
        """Return the maximum number of positions of an example, for windows of `window` tokens."""
        return window + RESERVED

    def present(self, tokens: Ints) -> Example:
        """Return uncorrupted text in the form that the trunk reads in training, without targets.

        By default the text is between [CLS] and [SEP]. In every objective, the text tokens have
        the indices 1 to n.
        """
        v = self.vocabulary
        return make_example(concatenate(v.cls, tokens, v.sep), "bidirectional", {})

    def prompt(self, tokens: Ints) -> Example | None:
        """Return the example whose last state predicts the first generated token.

        None if the objective cannot generate.
        """
        return None

    def sample_prompt(self, tokens: Ints, rng: CounterRng) -> Ints:
        """Return the part of a text that is passed to `prompt` for a sample of the model.

        By default this is the beginning of the text, which the model continues. Objectives that
        rewrite a text return all of it, with masks.
        """
        return tokens[:SAMPLE_PROMPT]

    def classified(self, tokens: Ints) -> Example | None:
        """Return the text with one target of `class_head`, at [CLS] with label 0.

        None if the objective has no such head.
        """
        if self.class_head is None:
            return None
        target = Targets(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64))
        return replace(self.present(tokens), targets={self.class_head.owner: target})

    def masked(self, tokens: Ints) -> Example | None:
        """Return a text with [MASK] tokens, with a target of `masked_token_head` at each of them.

        Labels are 0. None if the objective does not predict masked tokens in place.
        """
        return None

    def asked_at_masks(self, tokens: Ints) -> Example | None:
        """Return the example that `masked` should return for text in the form [CLS] text [SEP].

        The implementation of `masked` calls it in objectives that do not override `present`.

        Args:
            tokens: the text, in which some tokens are [MASK], any integer type [n].

        Returns:
            `present(tokens)` with a target (label 0) at each [MASK], in order, for the module of
            `masked_token_head`. None if there is no such head.
        """
        if self.masked_token_head is None:
            return None
        places = np.flatnonzero(tokens == self.vocabulary.mask)
        targets = Targets(places + 1, np.zeros(len(places), dtype=np.int64))
        return replace(self.present(tokens), targets={self.masked_token_head.owner: targets})
