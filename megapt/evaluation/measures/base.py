"""The base of measures: a measure scores a model on items that are the same for all members."""

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
    """The corpus lacks what a measure needs, or a model has no score; the message says why."""


@dataclass(frozen=True)
class MeasureContext:
    """What the members of a comparison have in common."""

    corpus: Corpus
    window: int
    """Text tokens that fit the positions the models were trained on."""
    seed: int
    """Seed of the comparison; key of a measure's random draws."""
    ranks: Ranks
    """The ranks that score together."""


class Measure(ABC):
    """Base of all measures. A subclass is one file of this folder; its `name` registers it.

    A measure scores every member on the same items. Its constructor chooses them from the context
    alone, before anything is trained. It also sets `items` and, if there are any, `material` and
    `baselines`. The constructor runs on each rank separately; all ranks call `score` together.

    Args:
        config: settings, an instance of the class's `Config`.
        context: what the members have in common.

    Raises:
        MeasureError: if the corpus lacks what the measure needs.
    """

    name: ClassVar[str]
    """The name in configurations."""
    title: ClassVar[str]
    """The name of the value in tables and sentences."""
    about: ClassVar[str]
    """Caption: what the value is, for example "the share of …", and the kind of its interval."""
    unit: ClassVar[str] = "share"
    """Unit of the value: `share`, shown in percent, or a unit that follows it, such as `nats`."""
    better: ClassVar[Literal["higher", "lower"]] = "higher"
    """Which values are better."""
    uses_labels: ClassVar[bool] = False
    """Whether it uses the classes of the documents, which some objectives are trained on."""
    untrained: ClassVar[bool] = True
    """Whether the model is also scored before its training, for comparison."""
    Config: ClassVar[type[Section]] = Section
    """Settings, in addition to the name and the file."""

    items: int
    """Number of items."""
    material: str = ""
    """Description of the items, if their number does not say enough."""
    baselines: Mapping[str, float] = MappingProxyType({})
    """Baselines without a model: name, for example "majority class" -> value."""

    def __init__(self, config: Any, context: MeasureContext) -> None:
        self.config = config
        self.context = context
        self.ranks = context.ranks

    def problem(self, objective: Objective) -> str:
        """Return why models of an objective cannot be scored, in one line; "" if they can."""
        return ""

    @abstractmethod
    def score(self, run: LoadedRun) -> Score:
        """Return the score of a model whose objective has no `problem`, the same on every rank.

        Args:
            run: the trained run, or the run before its first update.

        Raises:
            MeasureError: on every rank, if this model has no score.
        """

    def on_main(self, compute: Callable[[], T]) -> T:
        """Return on every rank what the main rank computes alone.

        Raises:
            MegaptError: on every rank, if `compute` raised it.
            MeasureError: on every rank, if `compute` raised it.
        """
        outcome: tuple[T | None, MeasureError | None] = None, None
        with self.ranks.shared_errors():
            if self.ranks.main:
                try:
                    outcome = compute(), None
                except MeasureError as error:
                    outcome = None, error
        result, problem = self.ranks.gather(outcome)[0]
        if problem is not None:
            raise problem
        return cast(T, result)
