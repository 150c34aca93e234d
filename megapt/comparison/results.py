"""What `results.json` holds: every number of a comparison, with its unit."""

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
    """What one loss head of a member reached on the held-out windows."""

    head: str
    kind: HeadKind
    weight: NonNegativeFloat
    """Its weight in the member's loss."""
    loss: Loss
    """Nats a target."""
    unigram_loss: NonNegativeFloat
    """Nats a target if the label frequencies of the training text are predicted everywhere."""
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
    """What a member has spent, over all ranks."""

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
    """One objective of the comparison: what it was, what it reached, what it cost."""

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
    """The same measure if label frequencies are predicted everywhere."""
    heads: list[HeadScores]
    scores: dict[str, Score]
    """By measure."""
    unanswered: dict[str, str]
    """Measure -> why the member has no score of it."""
    tokens_per_second: NonNegativeFloat
    """Raw tokens a second of training, over all ranks."""
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
        """Held-out loss as a share of the unigram loss; below 1 is better than frequencies."""
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
    """One measure: what was asked of all members alike."""

    name: str
    title: str
    """What tables call its value."""
    about: str
    """What the value is."""
    unit: str
    """Of the value: `share`, or another."""
    better: Literal["higher", "lower"]
    settings: dict[str, Any]
    items: NonNegativeInt
    material: str
    """What was asked, in words."""
    baselines: dict[str, Number]
    """What is reached without a model -> value."""
    untrained: Score | None
    """Of the model before its training, read as the first member that has a score then reads; None
    if the measure does not ask for it, or none has."""


class Results(Record):
    """A whole comparison."""

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
    """Positions a window."""
    policy: str
    """How documents are laid into windows."""
    measures: list[MeasureRecord]
    left_out: dict[str, str]
    """Measure that is usual -> what the corpus lacks for it."""
    held_equal: list[str]
    not_equal: list[str]
    members: list[Member]


def dump(results: Results) -> str:
    """Return the text of a results file. Lists of numbers stand on one line each."""
    text = results.model_dump_json(indent=2)
    # No string holds a line break.
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
