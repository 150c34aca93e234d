"""The number of windows of each step: a run may begin with smaller global batches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class BatchSchedule:
    """The size of the global batch as a function of the step.

    The global batches are consecutive parts of the sequence of windows, so t steps consume its
    first windows. The windows of a step and the step of a window are computed without a walk
    through the steps before.

    Args:
        stages: (steps, windows per step) of each stage, in order; both at least 1.
        global_batch_size: windows per step after the last stage.

    Raises:
        ValueError: if a stage has no steps or its steps no windows.
    """

    def __init__(self, stages: Sequence[tuple[int, int]], global_batch_size: int) -> None:
        self.stages = tuple(stages)
        self.sizes = (*(size for _, size in stages), global_batch_size)
        """The global batch of each stage, and the one after the last stage."""
        if min([*(steps for steps, _ in stages), *self.sizes]) < 1:
            raise ValueError(
                f"stages {self.stages}, then {global_batch_size} windows: steps and windows must "
                "be at least 1"
            )
        # The first step and window of each stage, and of the steps after the last stage.
        self._steps = list(accumulate((steps for steps, _ in stages), initial=0))
        self._windows = list(accumulate((steps * size for steps, size in stages), initial=0))

    def _stage(self, step: int) -> int:
        return bisect_right(self._steps, step) - 1

    def size(self, step: int) -> int:
        """Return the number of windows of a step."""
        return self.sizes[self._stage(step)]

    def first_window(self, step: int) -> int:
        """Return the first window of a step, which is the number consumed by the steps before."""
        stage = self._stage(step)
        return self._windows[stage] + (step - self._steps[stage]) * self.sizes[stage]

    def step_of(self, window: int) -> int:
        """Return the step that a window belongs to."""
        stage = bisect_right(self._windows, window) - 1
        return self._steps[stage] + (window - self._windows[stage]) // self.sizes[stage]

    def steps_until(self, windows: int) -> int:
        """Return the fewest steps that consume `windows` windows."""
        step = self.step_of(windows)
        return step + (self.first_window(step) < windows)

    def agrees(self, other: BatchSchedule, steps: int) -> bool:
        """Return whether each of the first `steps` steps consumes the same windows in both."""
        # Between the steps where a stage of either ends, both consume at constant rates.
        changes = {*self._steps, *other._steps, steps}
        return all(
            self.first_window(step) == other.first_window(step) for step in changes if step <= steps
        )


GlobalBatch = int | BatchSchedule
"""Windows per step: a constant number or a schedule."""


def as_schedule(global_batch_size: GlobalBatch) -> BatchSchedule:
    """Return the schedule; a number becomes a schedule without stages."""
    return (
        BatchSchedule((), global_batch_size)
        if isinstance(global_batch_size, int)
        else global_batch_size
    )
