"""The plan of a run: its memory, time and cost, and the recommended settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megapt.config import DeviceConfig
from megapt.distributed.footprint import Footprint, Trace
from megapt.planning.timing import StepTime


@dataclass(frozen=True)
class StagePlan:
    """The plan of one ZeRO stage."""

    footprint: Footprint
    """Memory with the micro-batch of the configuration."""
    largest: int
    """Largest micro-batch that divides a rank's batch and fits; 0 if none fits."""


@dataclass(frozen=True)
class Settings:
    """Recommended settings."""

    zero_stage: int
    micro_batch_size: int
    recompute: str
    checkpoint_every: int

    def words(self) -> list[str]:
        """Return the settings as words for the command line."""
        return [
            f"parallel.zero_stage={self.zero_stage}",
            f"training.micro_batch_size={self.micro_batch_size}",
            f"training.recompute={self.recompute}",
            f"checkpoint.every={self.checkpoint_every}",
        ]


@dataclass(frozen=True)
class Plan:
    """Everything that is computed for a run."""

    device: DeviceConfig
    ranks: int
    parameters: Mapping[str, int]
    """Part of the model -> its parameters."""
    positions: float
    """Positions of the trunk per raw token."""
    targets: float
    """Targets per raw token."""
    flops: float
    """Model FLOPs per raw token."""
    activations: Trace
    """Activations of the configured micro-batch."""
    stages: Sequence[StagePlan]
    settings: Settings
    """The recommended settings; the fields that follow assume them."""
    memory: Footprint
    step: StepTime
    steps: float
    tokens: float
    """Raw tokens of the whole run."""
    checkpoint_bytes: float
    checkpoint_seconds: float
    """Seconds to write a checkpoint, with all nodes at once."""
    fault_seconds: float
    """Mean seconds between two faults of the job."""

    @property
    def usable(self) -> float:
        """Usable bytes of a device."""
        return self.device.memory * self.device.usable

    @property
    def seconds(self) -> float:
        """Seconds of the whole run, with checkpoints."""
        saves = self.steps / self.settings.checkpoint_every
        return self.steps * self.step.total + saves * self.checkpoint_seconds

    @property
    def cost(self) -> float:
        """Cost in the currency of the device's price."""
        return self.seconds / 3600 * self.ranks * self.device.price
