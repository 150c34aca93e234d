"""What `results.json` holds: every number of a comparison, with its unit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megapt.config.section import Axis, Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat
from megapt.data.example import HeadKind
from megapt.errors import ConfigError, DamagedError, MegaptError

Loss = Annotated[float, Field(strict=False)]
"""Nats. JSON has no number for a diverged loss, so it is written as the string "NaN"."""
Interval = tuple[Fraction, Fraction]
"""Low and high end of a 95 % confidence interval of a share."""


class Record(BaseModel):
    """Base of all records: unknown keys and wrong types are refused, values cannot change."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        ser_json_inf_nan="strings",
    )


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


class Sample(Record):
    """One generated text."""

    kind: Literal["continuation", "rewriting", "filling"]
    prompt: str
    text: str
    repetition: Fraction | None
    """Share of 4-grams that occurred before in the text; None for less than 4 tokens."""


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
    """Whether it was trained on the document classes that the probe asks for."""
    heldout_loss: Loss
    """Nats, weighted over the heads. Not comparable between different objectives."""
    unigram_loss: PositiveFloat
    """The same measure if label frequencies are predicted everywhere."""
    heads: list[HeadScores]
    probe_accuracy: Fraction | None
    """Share of held-out documents that are classified rightly from the frozen trunk."""
    probe_interval: Interval | None
    majority_accuracy: Fraction | None
    """Share of the most frequent class among the same documents."""
    tokens_per_second: NonNegativeFloat
    """Raw tokens a second of training, over all ranks."""
    budget: Budget
    steps: NonNegativeInt
    parameters: NonNegativeInt
    """Trained parameters, heads included."""
    samples: list[Sample]
    repetition_rate: Fraction | None
    """Mean repetition of the samples."""
    curve: list[CurvePoint]
    ranks: NonNegativeInt
    """Processes that trained it."""
    run: str
    """The run folder, relative to that of results.json."""

    @property
    def loss_ratio(self) -> float:
        """Held-out loss as a share of the unigram loss; below 1 is better than frequencies."""
        return self.heldout_loss / self.unigram_loss


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


class ProbeRecord(Record):
    """The measure that all members share: classification from the frozen trunk."""

    train_documents: NonNegativeInt
    heldout_documents: NonNegativeInt
    untrained_accuracy: Fraction | None
    """Of the trunk as it was initialised, before any training."""
    untrained_interval: Interval | None
    majority_accuracy: Fraction


class Results(Record):
    """A whole comparison."""

    format: Literal["megapt-comparison/1"]
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
    probe: ProbeRecord | None
    """None if the corpus has no labels."""
    held_equal: list[str]
    not_equal: list[str]
    members: list[Member]


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


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927).

    Unlike the normal approximation it stays within [0, 1] and keeps its width at shares of 0 and 1.

    Raises:
        ValueError: unless 0 <= correct <= total and total > 0.
    """
    # A second, which only the rank that scores has to wait for.
    from scipy.stats import binomtest

    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
