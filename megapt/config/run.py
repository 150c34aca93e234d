"""A whole run, and a comparison of several."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from megapt.config.data import DataConfig
from megapt.config.model import LossConfig, ModelConfig
from megapt.config.running import (
    BranchConfig,
    CheckpointConfig,
    FaultsConfig,
    MonitorConfig,
    ParallelConfig,
)
from megapt.config.section import (
    MemberName,
    NonNegativeInt,
    Parts,
    PartSection,
    PositiveInt,
    Section,
)
from megapt.config.updates import OptimizerConfig, ScheduleConfig, TrainingConfig

_ALIASES = {"clm": "arlm"}
"""Other names of objectives. Only the first one keys draws and names records."""


class ObjectiveSection(PartSection):
    """The section ``objective``: a name, and settings that the named objective itself checks."""

    @model_validator(mode="before")
    @classmethod
    def _resolve_alias(cls, values: Any) -> Any:
        named = isinstance(values, dict) and values.get("file") is None
        if named and (name := _ALIASES.get(str(values.get("name")))):
            return {**values, "name": name}
        return values


class SharedConfig(Section):
    """What a run has in common with the others of a comparison."""

    output: str
    """Folder of the run; of a comparison, that for results.json, report.html and its runs."""
    seed: NonNegativeInt = 0
    """Keys the order of the data, the masks, the initial weights and the dropout."""
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
    """Anything else of DeepSpeed's own configuration; what megapt sets itself is refused."""


class RunConfig(SharedConfig):
    """One training run: `megapt train`."""

    objective: ObjectiveSection
    branch: BranchConfig | None = None
    """The run begins with another's state: the decay of a `wsd` run at several budgets, say."""

    def planned_windows(self, share: float = 1.0) -> int | None:
        """Return the windows that this share of the budget pays for, the last one begun counted.

        None unless the budget counts raw tokens: on another axis it would depend on what the
        objective makes of the text.
        """
        budget = self.training.budget
        if budget.axis != "raw_tokens":
            return None
        # As their decimal digits say: 0.3 of 1000 is 300, and not a little more.
        tokens = Fraction(str(share)) * Fraction(str(budget.amount))
        return math.ceil(tokens / self.data.window)

    @property
    def batch_stages(self) -> tuple[tuple[int, int], ...] | None:
        """(steps, windows a step) of each stage of the planned run, in order; None without a plan.

        A stage ends with the first step that reaches its share of the budget, the last one with
        the budget. A stage that the one before it has used up holds no step.
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
        """Updates that the budget pays for; None unless it counts raw tokens."""
        stages = self.batch_stages
        return None if stages is None else sum(steps for steps, _ in stages)


class CompareConfig(SharedConfig):
    """Several objectives under one budget: `megapt compare`."""

    title: str = "Comparison of pretraining objectives"
    members: Annotated[dict[MemberName, ObjectiveSection], Field(min_length=1)]
    """Name of a member, which is also that of its folder -> its objective."""
    measures: Parts = Field(
        default_factory=lambda: [PartSection(name="probe"), PartSection(name="repetition")]
    )
    """What all members are asked. Without this key, of the two what the corpus allows; what is
    named here has to be possible."""
    validation_windows: PositiveInt = 512
    """Held-out windows of the final evaluation; all of them if the split has fewer."""
    num_samples: NonNegativeInt = 4
    """Generated samples a member."""
    max_new_tokens: PositiveInt = 64
    """Longest continuation that is sampled, in tokens."""

    def member(self, name: str) -> RunConfig:
        """Return the run of one member: the comparison's settings with the member's objective."""
        shared = {key: getattr(self, key) for key in SharedConfig.model_fields}
        shared["output"] = str(Path(self.output) / "members" / name)
        if self.checkpoint.copy_to is not None:
            place = f"{self.checkpoint.copy_to.rstrip('/')}/{name}"
            shared["checkpoint"] = self.checkpoint.model_copy(update={"copy_to": place})
        return RunConfig(**shared, objective=self.members[name])
