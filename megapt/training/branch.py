"""Branches: runs that begin with another's state under a budget and a schedule of their own.

The usual one is the decay of a `wsd` run at several budgets, each from a checkpoint of one stable
run (Hu et al. 2024, section 4; Hägele et al. 2024, section 3). Such a branch is what a plain run of
that budget and schedule would be from there on, without the steps before it.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

from megapt.checkpoint.run_folder import compared, is_free
from megapt.checkpoint.state import TrainerState
from megapt.config import Origins, RunConfig
from megapt.data.budget import Spent
from megapt.data.schedules import batch_schedule, length_schedule
from megapt.optim.schedule import rate_factor

_OWN = ("branch", "branch.*", "schedule.*", "training.budget.*", "training.global_batch_size")
"""Settings of a branch; whether they fit what the parent has done is looked at one by one."""

_JUMP = 0.01
"""Relative change of the learning rate from the parent to its branch that is let pass."""


def check_branch(
    parent: RunConfig, config: RunConfig, state: TrainerState, origins: Origins
) -> None:
    """Refuse a branch that could not go on where its parent stood.

    Its shares are of its own budget. So its stages must end at the steps at which the parent's did,
    as far as they lie before it, and its learning rate must begin at what the parent's was.

    Args:
        parent: the run that the branch begins with.
        config: of the branch.
        state: of the parent, in the checkpoint that the branch begins with.
        origins: of the branch's configuration, for errors.

    Raises:
        ConfigError: naming what does not fit.
    """
    step, name = state.step, parent.output
    before, now = (compared(run.model_dump(), fingerprint="") for run in (parent, config))
    for key in sorted({*before, *now}):
        own = is_free(key) or any(fnmatchcase(key, pattern) for pattern in _OWN)
        if not own and before.get(key) != now.get(key):
            raise origins.error(
                "branch.run",
                f"{name} has {key} = {before.get(key)}, not {now.get(key)}; a branch has a budget "
                f"and a schedule of its own, and the rest of its parent",
            )
    batches = batch_schedule(config, origins)
    same = {
        "batches": batches.agrees(batch_schedule(parent), step)
        and batches.first_window(step) == state.data.windows,
        "windows": length_schedule(config, origins).agrees(length_schedule(parent), step),
    }
    for key, agrees in same.items():
        if not agrees:
            raise origins.error(
                f"schedule.{key}",
                f"the first {step} steps would not be those of {name}; its stages should end at "
                f"the same steps, which are other shares of another budget",
            )
    share = Spent(**state.spent).share(config.training.budget)
    if share >= 1:
        raise origins.error(
            "training.budget.amount",
            f"{name} had spent {config.training.budget.amount:,.0f} {config.training.budget.axis} "
            f"by step {step}; give more, or branch from an earlier step",
        )
    rates = (
        rate_factor(parent.schedule, Spent(**state.spent).share(parent.training.budget)),
        rate_factor(config.schedule, share),
    )
    if not math.isclose(*rates, rel_tol=_JUMP):
        raise origins.error(
            "schedule",
            f"at step {step}, {share:.1%} of the budget, the learning rate would jump from "
            f"{rates[0]:.3g} to {rates[1]:.3g} of its peak; begin before {name} decays, and let "
            f"the branch decay over {1 - share:.4g} of its budget or less",
        )
