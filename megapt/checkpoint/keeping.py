"""Decides which checkpoints are kept."""

from __future__ import annotations

from collections.abc import Mapping

from megapt.config import CheckpointConfig


def kept(scores: Mapping[int, float | None], config: CheckpointConfig) -> dict[int, list[str]]:
    """Return step -> why it is kept ("last", "every", "best"), for each kept step.

    Args:
        scores: step -> validation score, lower is better, or None if it has none.
        config: the retention policy.
    """
    steps = sorted(scores)
    # Of equal scores the earlier step wins: it was as good after less training.
    rated = sorted((score, step) for step, score in scores.items() if score is not None)
    reasons = {
        "last": steps[-config.keep_last :],
        "every": [step for step in steps if config.keep_every and not step % config.keep_every],
        "best": [step for _, step in rated[: config.keep_best]],
    }
    return {
        step: why
        for step in steps
        if (why := [reason for reason, which in reasons.items() if step in which])
    }
