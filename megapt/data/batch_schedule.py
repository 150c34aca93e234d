"""How many windows each step consumes: a run may begin with smaller global batches."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class BatchSchedule:
    """The size of the global batch as a function of the step.

    The global batches cut the sequence of windows into consecutive parts, so the windows that t
    steps consume are the first ones, and a step is found from its windows and the other way round
    without a walk through those before it.

    Args:
        stages: (steps, windows a step) of each stage, in order; both at least 1.
        global_batch_size: windows a step after the last stage.

    Attributes:
        sizes: every global batch that occurs, stage by stage.

    Raises:
        ValueError: if a stage holds no step, or a step no window.
    """

    def __init__(self, stages: Sequence[tuple[int, int]], global_batch_size: int) -> None:
        self.stages = tuple(stages)
        self.sizes = (*(size for _, size in stages), global_batch_size)
        if min([*(steps for steps, _ in stages), *self.sizes]) < 1:
            raise ValueError(
                f"stages {self.stages} and then {global_batch_size}: less than 1 in one"
            )
        # Of each stage, and of what comes after the last one, the first step and window.
        self._steps = list(accumulate((steps for steps, _ in stages), initial=0))
        self._windows = list(accumulate((steps * size for steps, size in stages), initial=0))

    def _stage(self, step: int) -> int:
        return bisect_right(self._steps, step) - 1

    def size(self, step: int) -> int:
        """Return the windows of a step."""
        return self.sizes[self._stage(step)]

    def first_window(self, step: int) -> int:
        """Return the first window of a step: the number of those that the steps before consume."""
        stage = self._stage(step)
        return self._windows[stage] + (step - self._steps[stage]) * self.sizes[stage]

    def step_of(self, window: int) -> int:
        """Return the step that a window belongs to: the number of whole steps before it."""
        stage = bisect_right(self._windows, window) - 1
        return self._steps[stage] + (window - self._windows[stage]) // self.sizes[stage]

    def steps_until(self, windows: int) -> int:
        """Return the fewest steps that consume `windows` windows."""
        step = self.step_of(windows)
        return step + (self.first_window(step) < windows)

    def agrees(self, other: BatchSchedule, steps: int) -> bool:
        """Whether the first `steps` steps consume the same windows, each step its own."""
        # Between the steps where a stage of either ends, both consume at constant rates.
        corners = {*self._steps, *other._steps, steps}
        return all(
            self.first_window(step) == other.first_window(step) for step in corners if step <= steps
        )


GlobalBatch = int | BatchSchedule
"""Windows a step: always as many, or by a schedule."""


def as_schedule(global_batch_size: GlobalBatch) -> BatchSchedule:
    """Return the schedule; a number is one without stages."""
    return (
        BatchSchedule((), global_batch_size)
        if isinstance(global_batch_size, int)
        else global_batch_size
    )
