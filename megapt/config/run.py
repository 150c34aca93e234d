"""The schemas of a whole run and of a comparison."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from megapt.config.data import DataConfig
from megapt.config.model import LossConfig, ModelConfig
from megapt.config.section import (
    MemberName,
    NonNegativeInt,
    Parts,
    PartSection,
    PositiveInt,
    Section,
)
from megapt.config.system import (
    BranchConfig,
    CheckpointConfig,
    FaultsConfig,
    MonitorConfig,
    ParallelConfig,
)
from megapt.config.training import OptimizerConfig, ScheduleConfig, TrainingConfig

_ALIASES = {"clm": "arlm"}
"""Alias of an objective -> its name. Random draws and records use the name."""


class ObjectiveSection(PartSection):
    """The section ``objective``: a name, and settings that the named objective checks."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_alias(cls, values: Any) -> Any:
        named = isinstance(values, dict) and values.get("file") is None
        if named and (name := _ALIASES.get(str(values.get("name")))):
            return {**values, "name": name}
        return values


class SharedConfig(Section):
    """Settings that all runs of a comparison share."""

    output: str
    """Folder of the run. For a comparison: folder of results.json, report.html and the runs."""
    seed: NonNegativeInt = 0
    """Seed of the data order, the masks, the initial weights and dropout."""
    data: DataConfig
    model: ModelConfig
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig
    parallel: ParallelConfig = ParallelConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    faults: FaultsConfig = FaultsConfig()
    monitor: MonitorConfig = MonitorConfig()
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Further settings for DeepSpeed, in its own format. Settings that megapt makes are refused."""


class RunConfig(SharedConfig):
    """One training run: `megapt train`."""

    objective: ObjectiveSection
    branch: BranchConfig | None = None
    """Run from whose checkpoint this run starts, for example to decay a `wsd` run at several
    budgets. None: the run starts with initial weights."""

    def planned_windows(self, share: float = 1.0) -> int | None:
        """Return the number of windows for a share of the budget, rounded up.

        The result is None unless the budget counts raw tokens: on other axes the number depends on
        the examples that the objective makes.
        """
        budget = self.training.budget
        if budget.axis != "raw_tokens":
            return None
        # Fractions of the decimal digits are exact: 0.3 of 1000 is 300, not slightly more.
        tokens = Fraction(str(share)) * Fraction(str(budget.amount))
        return math.ceil(tokens / self.data.window)

    @property
    def batch_stages(self) -> tuple[tuple[int, int], ...] | None:
        """(steps, windows per step) of each planned stage, in order; None without a plan.

        A stage ends with the first step that reaches its share of the budget; the last stage ends
        with the budget. A stage has 0 steps if the stage before it already reaches its share.
        """
        ends = [(stage.until, stage.global_batch_size) for stage in self.schedule.batch_size_rampup]
        stages = []
        consumed = 0
        for share, size in [*ends, (1.0, self.training.global_batch_size)]:
            windows = self.planned_windows(share)
            if windows is None:
                return None
            steps = max(0, -(-(windows - consumed) // size))
            stages.append((steps, size))
            consumed += steps * size
        return tuple(stages)

    @property
    def planned_steps(self) -> int | None:
        """Number of steps in the budget; None unless the budget counts raw tokens."""
        stages = self.batch_stages
        return None if stages is None else sum(steps for steps, _ in stages)


class CompareConfig(SharedConfig):
    """Several objectives under one budget: `megapt compare`."""

    title: str = "Comparison of pretraining objectives"
    """Heading of the report."""
    members: Annotated[dict[MemberName, ObjectiveSection], Field(min_length=1)]
    """Name of a member -> its objective. The name is also the folder of the member's run."""
    measures: Parts = Field(
        default_factory=lambda: [PartSection(name="probe"), PartSection(name="repetition")]
    )
    """Measures that evaluate all members. Without this key, those of the default that the corpus
    allows. A measure that is named here is refused if the corpus does not allow it."""
    validation_windows: PositiveInt = 512
    """Validation windows of the final evaluation; all if the split has fewer."""
    num_samples: NonNegativeInt = 4
    """Generated samples per member. 0: none."""
    max_new_tokens: PositiveInt = 64
    """Maximum length of a sample, in tokens."""

    def member(self, name: str) -> RunConfig:
        """Return the run of one member: the shared settings and the objective of the member."""
        shared = {key: getattr(self, key) for key in SharedConfig.model_fields}
        shared["output"] = str(Path(self.output) / "members" / name)
        if self.checkpoint.copy_to is not None:
            place = f"{self.checkpoint.copy_to.rstrip('/')}/{name}"
            shared["checkpoint"] = self.checkpoint.model_copy(update={"copy_to": place})
        return RunConfig(**shared, objective=self.members[name])
