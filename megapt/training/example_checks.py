"""Checks of examples before training, so that a wrong objective does not fail in the middle."""

from __future__ import annotations

import numpy as np

from megapt.config.errors import nearest
from megapt.data import RESERVED, Example, HeadSpec, Targets
from megapt.data.example import Ints
from megapt.objectives import Objective, ObjectiveError


def _check_ids(what: str, values: Ints, length: int, stop: int, reason: str = "") -> None:
    """Refuse values other than `length` integers from 0 to `stop` - 1; `reason` explains `stop`."""
    if not np.issubdtype(values.dtype, np.integer):
        raise ObjectiveError(f"{what} are {values.dtype}; they should be integers")
    if values.shape != (length,):
        raise ObjectiveError(f"{what} have the shape {values.shape}; it should be ({length},)")
    if length and not 0 <= values.min() <= values.max() < stop:
        wrong = values[(values < 0) | (values >= stop)][0]
        raise ObjectiveError(f"{what} hold {wrong}; they should be from 0 to {stop - 1}{reason}")


def _check_targets(head: HeadSpec, targets: Targets, length: int, vocabulary: int) -> None:
    """Refuse targets that do not fit the head or an example of `length` positions."""
    count = len(targets.positions)
    classes = 2 if head.kind == "detection" else head.classes
    of_head = f"of the targets of head '{head.name}'"
    _check_ids(f"positions {of_head}", targets.positions, count, length)
    stop = vocabulary if head.over_vocabulary else classes
    _check_ids(f"labels {of_head}", targets.labels, count, stop)
    for what, values in (("weights", targets.weights), ("draws", targets.draws)):
        if values is not None and values.shape != (count,):
            raise ObjectiveError(f"{what} {of_head} have the shape {values.shape}, not ({count},)")
    if head.kind == "generator" and targets.draws is None:
        raise ObjectiveError(f"draws {of_head} are missing; it needs them to sample")


def check_example(example: Example, objective: Objective) -> None:
    """Refuse an example that violates the contract of `Example`, `Targets` and `Objective`.

    Raises:
        ObjectiveError: if it does; the message says what is wrong, and what is allowed.
    """
    window, vocabulary = objective.context.window, objective.vocabulary.size
    n, longest = len(example), objective.longest_example(window)
    if not 1 <= n <= longest:
        raise ObjectiveError(f"it has {n} positions; `longest_example` allows 1 to {longest}")
    _check_ids("tokens", example.tokens, n, vocabulary)
    _check_ids("position ids", example.positions, n, window + RESERVED)
    reason = f", as its `segments = {objective.segments}` says"
    _check_ids("segments", example.segments, n, max(objective.segments, 1), reason)
    if example.visible.shape != (n,) or example.visible.dtype != np.bool_:
        raise ObjectiveError(f"`visible` should be {n} booleans")
    heads = {head.name: head for head in objective.heads}
    for name, targets in example.targets.items():
        if name not in heads:
            raise ObjectiveError(f"it has targets of a head '{name}'; {nearest(name, [*heads])}")
        _check_targets(heads[name], targets, n, vocabulary)
