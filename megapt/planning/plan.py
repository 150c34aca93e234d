"""The plan of a run: what it will take, and the settings to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megapt.config import DeviceConfig
from megapt.distributed.footprint import Footprint, Trace
from megapt.planning.timing import StepTime


@dataclass(frozen=True)
class StagePlan:
    """One ZeRO stage."""

    footprint: Footprint
    """With the micro-batch of the configuration."""
    largest: int
    """Largest micro-batch that divides and fits; 0 if none does."""


@dataclass(frozen=True)
class Settings:
    """What to run with."""

    zero_stage: int
    micro_batch_size: int
    recompute: str
    checkpoint_every: int

    def words(self) -> list[str]:
        """Return them as words for the command line."""
        return [
            f"parallel.zero_stage={self.zero_stage}",
            f"training.micro_batch_size={self.micro_batch_size}",
            f"training.recompute={self.recompute}",
            f"checkpoint.every={self.checkpoint_every}",
        ]


@dataclass(frozen=True)
class Plan:
    """All that is reckoned of a run."""

    device: DeviceConfig
    ranks: int
    parameters: Mapping[str, int]
    """Part of the model -> its parameters."""
    positions: float
    """Of the trunk, for a raw token."""
    targets: float
    flops: float
    """Model FLOPs of a raw token."""
    activations: Trace
    """Of the configured micro-batch."""
    stages: Sequence[StagePlan]
    settings: Settings
    """The recommended ones; what follows is with them."""
    memory: Footprint
    step: StepTime
    steps: float
    tokens: float
    """Raw tokens of the whole run."""
    checkpoint_bytes: float
    checkpoint_seconds: float
    """In which one is written, all nodes at once."""
    fault_seconds: float
    """Between two faults of the job."""

    @property
    def usable(self) -> float:
        """Bytes of a device that may be planned with."""
        return self.device.memory * self.device.usable

    @property
    def seconds(self) -> float:
        """Of the whole run, checkpoints included."""
        saves = self.steps / self.settings.checkpoint_every
        return self.steps * self.step.total + saves * self.checkpoint_seconds

    @property
    def cost(self) -> float:
        """In the currency of the device's price."""
        return self.seconds / 3600 * self.ranks * self.device.price
