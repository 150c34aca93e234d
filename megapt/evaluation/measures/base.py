"""What a measure is: items that are the same for all members, and a score of a model on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeVar, cast

from megapt.config import Section
from megapt.data import Corpus
from megapt.distributed.ranks import Ranks
from megapt.evaluation.loading import LoadedRun
from megapt.evaluation.scores import Score
from megapt.objectives import Objective

T = TypeVar("T")


class MeasureError(ValueError):
    """The corpus lacks what a measure needs, or a model has no score; the text says why."""


@dataclass(frozen=True)
class MeasureContext:
    """What the members of a comparison have in common."""

    corpus: Corpus
    window: int
    """Text tokens that fit the positions the models were trained on."""
    seed: int
    """Of the comparison; keys what a measure draws."""
    ranks: Ranks
    """That score together."""


class Measure(ABC):
    """Base of all measures. A subclass is one file of this folder; its `name` registers it.

    A measure asks every member the same items. It chooses them in its constructor, from the
    context alone and before anything is trained, and sets `items` there, `material` and
    `baselines` if it has any. The constructor runs on each rank for itself; `score` on all
    together.

    Args:
        config: settings of the class's own `Config`.
        context: what the members have in common.

    Raises:
        MeasureError: if the corpus lacks what the measure needs.
    """

    name: ClassVar[str]
    """What users type."""
    title: ClassVar[str]
    """What tables and sentences call its value."""
    about: ClassVar[str]
    """What the value is, for captions: "the share of …", say, and the kind of its interval."""
    unit: ClassVar[str] = "share"
    """Of the value: a `share`, shown in per cent, or another, shown behind it, `nats` say."""
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    """Which values are better."""
    uses_labels: ClassVar[bool] = False
    """Whether it asks for the documents' classes, which some objectives are trained on."""
    untrained: ClassVar[bool] = True
    """Whether the model is scored before its training too, for comparison."""
    Config: ClassVar[type[Section]] = Section
    """Settings, beside the name and the file."""

    items: int
    """How many there are."""
    material: str = ""
    """What they are, in words, if their number does not say enough."""
    baselines: Mapping[str, float] = MappingProxyType({})
    """What is reached without a model: "majority class", say -> value."""

    def __init__(self, config: Any, context: MeasureContext) -> None:
        self.config = config
        self.context = context
        self.ranks = context.ranks

    def problem(self, objective: Objective) -> str:
        """Return why models of an objective cannot answer, in one line; "" if they can."""
        return ""

    @abstractmethod
    def score(self, run: LoadedRun) -> Score:
        """Return the score of a model whose objective has no `problem`, the same on every rank.

        Args:
            run: the trained run, or one that stands before its first update.

        Raises:
            MeasureError: on every rank, if this model has no score.
        """

    def on_main(self, compute: Callable[[], T]) -> T:
        """Return on every rank what the main rank computes alone.

        Raises:
            MegaptError: on every rank, if `compute` raised it.
            MeasureError: likewise.
        """
        mine: tuple[T | None, MeasureError | None] = None, None
        with self.ranks.together():
            if self.ranks.main:
                try:
                    mine = compute(), None
                except MeasureError as error:
                    mine = None, error
        found, problem = self.ranks.gather(mine)[0]
        if problem is not None:
            raise problem
        return cast(T, found)
