"""Branches: runs that start from a checkpoint of another run, with another budget and schedule.

A typical use is the decay phase of `wsd` at several budgets: each branch starts from a checkpoint
of one stable run (Hu et al. 2024, section 4; Hägele et al. 2024, section 3). From its first step
on, a branch equals a plain run with its budget and schedule, but does not repeat the steps before.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

from megapt.checkpoint.run_folder import compared, may_change
from megapt.checkpoint.state import TrainerState
from megapt.config import Origins, RunConfig
from megapt.data.budget import Spent
from megapt.data.schedules import batch_schedule, length_schedule
from megapt.optim.schedule import rate_factor

_BRANCH_SETTINGS = (
    "branch",
    "branch.*",
    "schedule.*",
    "training.budget.*",
    "training.global_batch_size",
)
"""Settings in which a branch may differ from its parent. Their values are checked separately."""

_RATE_TOLERANCE = 0.01
"""Largest relative change of the learning rate from the parent to its branch that is allowed."""


def check_branch(
    parent: RunConfig, config: RunConfig, state: TrainerState, origins: Origins
) -> None:
    """Refuse a branch that cannot continue from the state of its parent.

    Shares in a schedule refer to the budget of the run itself. Therefore the stages of the branch
    before its first step must end at the same steps as those of the parent, and its learning rate
    must start at the parent's.

    Args:
        parent: configuration of the run from which the branch starts.
        config: configuration of the branch.
        state: state of the parent in the checkpoint from which the branch starts.
        origins: places of the branch's settings, for error messages.

    Raises:
        ConfigError: if a setting does not fit; the message names it.
    """
    step, name = state.step, parent.output
    before, now = (compared(run.model_dump(), fingerprint="") for run in (parent, config))
    for key in sorted({*before, *now}):
        own = may_change(key) or any(fnmatchcase(key, pattern) for pattern in _BRANCH_SETTINGS)
        if not own and before.get(key) != now.get(key):
            raise origins.error(
                "branch.run",
                f"{name} has {key} = {before.get(key)}, not {now.get(key)}; a branch may change "
                f"the budget and the schedule, and takes all other settings from its parent",
            )
    batches = batch_schedule(config, origins)
    same = {
        "batch_size_rampup": batches.agrees(batch_schedule(parent), step)
        and batches.first_window(step) == state.data.windows,
        "window_rampup": length_schedule(config, origins).agrees(length_schedule(parent), step),
    }
    for key, agrees in same.items():
        if not agrees:
            raise origins.error(
                f"schedule.{key}",
                f"the first {step} steps would differ from those of {name}; the stages should end "
                f"at the same steps, which are other shares of another budget",
            )
    share = Spent(**state.spent).share(config.training.budget)
    if share >= 1:
        raise origins.error(
            "training.budget.amount",
            f"{name} had spent {config.training.budget.amount:,.0f} {config.training.budget.axis} "
            f"by step {step}; raise the amount, or branch from an earlier step",
        )
    rates = (
        rate_factor(parent.schedule, Spent(**state.spent).share(parent.training.budget)),
        rate_factor(config.schedule, share),
    )
    if not math.isclose(*rates, rel_tol=_RATE_TOLERANCE):
        raise origins.error(
            "schedule",
            f"at step {step}, {share:.1%} of the budget, the learning rate would jump from "
            f"{rates[0]:.3g} to {rates[1]:.3g} of its peak; branch before {name} decays, and let "
            f"the branch decay over at most {1 - share:.4g} of its budget",
        )
