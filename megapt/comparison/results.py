"""The content of `results.json`: every number of a comparison, with its unit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from megapt.config.section import Axis, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat
from megapt.data.example import HeadKind
from megapt.errors import ConfigError, DamagedError, MegaptError
from megapt.evaluation import Sample
from megapt.evaluation.scores import Number, Record, Score

Loss = Number
"""Nats."""
_NUMBERS = re.compile(r'\[\n([^][{}"]*)\]')


class HeadScores(Record):
    """Scores of one loss head of a member on the validation windows."""

    head: str
    kind: HeadKind
    weight: NonNegativeFloat
    """Its weight in the member's loss."""
    loss: Loss
    """Nats per target."""
    unigram_loss: NonNegativeFloat
    """Nats per target if the label frequencies of the training text are predicted everywhere."""
    accuracy: Fraction
    unigram_accuracy: Fraction
    """Accuracy of predicting the most frequent label everywhere."""
    targets: NonNegativeInt


class CurvePoint(Record):
    """One validation during training."""

    step: NonNegativeInt
    raw_tokens: NonNegativeFloat
    positions: NonNegativeFloat
    targets: NonNegativeFloat
    model_flops: NonNegativeFloat
    wall_clock: NonNegativeFloat
    """Seconds."""
    loss: Loss
    """Nats, weighted over the heads."""


class Budget(Record):
    """What a member spent, over all ranks."""

    raw_tokens: NonNegativeFloat
    """Tokens of text that were read."""
    positions: NonNegativeFloat
    """Positions that the trunk computed."""
    targets: NonNegativeFloat
    """Predictions that were scored."""
    model_flops: NonNegativeFloat
    wall_clock: NonNegativeFloat
    """Seconds in training steps."""


class Member(Record):
    """One objective of the comparison, with its scores and its cost."""

    name: str
    objective: str
    settings: dict[str, Any]
    """Settings of the objective."""
    attention: str
    uses_labels: bool
    """Whether it was trained on the documents' classes."""
    validation_loss: Loss
    """Nats, weighted over the heads. Not comparable between different objectives."""
    unigram_loss: PositiveFloat
    """The same loss if label frequencies are predicted everywhere."""
    heads: list[HeadScores]
    scores: dict[str, Score]
    """Measure -> score."""
    unanswered: dict[str, str]
    """Measure -> why the member has no score."""
    tokens_per_second: NonNegativeFloat
    """Raw tokens per second of training, over all ranks."""
    budget: Budget
    steps: NonNegativeInt
    parameters: NonNegativeInt
    """Trained parameters, heads included."""
    samples: list[Sample]
    curve: list[CurvePoint]
    ranks: NonNegativeInt
    """Processes that trained it."""
    run: str
    """The run folder, relative to that of results.json."""

    @property
    def loss_ratio(self) -> float:
        """Validation loss / unigram loss; below 1 is better than the unigram frequencies."""
        return self.validation_loss / self.unigram_loss


class CorpusRecord(Record):
    """The text that all members read."""

    name: str | None = None
    fingerprint: str
    train_documents: NonNegativeInt
    train_tokens: NonNegativeInt
    valid_documents: NonNegativeInt
    valid_tokens: NonNegativeInt
    labels: list[str]
    """Names of the document classes; empty if the corpus has none."""


class MeasureRecord(Record):
    """One measure, which is the same for all members."""

    name: str
    title: str
    """Name of the value in tables."""
    about: str
    """What the value is."""
    unit: str
    """Unit of the value: `share`, or another."""
    better: Literal["higher", "lower"]
    settings: dict[str, Any]
    items: NonNegativeInt
    material: str
    """Description of the items."""
    baselines: dict[str, Number]
    """Baseline without a model -> value."""
    untrained: Score | None
    """Score of the model before its training, read as by the first member that has a score; None if
    the measure does not use it or no member has a score."""


class Results(Record):
    """The results of a comparison."""

    format: Literal["megapt-comparison/3"]
    megapt_version: str
    title: str
    corpus: CorpusRecord
    budget_axis: Axis
    budget_amount: PositiveFloat
    """In the unit of the axis: tokens, positions, predictions, FLOPs or seconds."""
    model: dict[str, Any]
    """Settings of the trunk, the same for all members."""
    seed: NonNegativeInt
    ranks: NonNegativeInt
    device: str
    window: NonNegativeInt
    """Positions per window."""
    window_policy: str
    """How windows are filled with documents."""
    measures: list[MeasureRecord]
    skipped_measures: dict[str, str]
    """Default measure -> what the corpus lacks for it."""
    held_equal: list[str]
    not_equal: list[str]
    members: list[Member]


def dump(results: Results) -> str:
    """Return the text of a results file. Each list of numbers is on one line."""
    text = results.model_dump_json(indent=2)
    # No string contains a line break.
    return _NUMBERS.sub(lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"


def load(path: str | Path) -> Results:
    """Read a results file.

    Raises:
        ConfigError: if it is missing or of another format.
        DamagedError: if it is not what a comparison writes.
    """
    path = Path(path)
    try:
        return Results.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such results file") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        kind: type[MegaptError] = ConfigError if place == "format" else DamagedError
        raise kind(f"{path}: {place}: {first['msg']}") from None
