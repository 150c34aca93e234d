"""The status of a run, read only from its folder. The run may be on another machine, or over."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from megapt.checkpoint.run_folder import RunFolder
from megapt.checkpoint.state import checkpoint_path, steps_saved
from megapt.config import RunConfig
from megapt.monitoring.metrics import CLOCK, EVENT, Metrics, budget_share, read_metrics
from megapt.resilience.heartbeats import ALIVE, read_heartbeat

State = Literal["begun", "training", "stopped", "failed", "silent", "finished"]
"""`begun`: no step is recorded, and no rank is alive. `training`: the ranks are alive. `stopped`:
the ranks ended properly. `failed`: a rank failed, hung or was killed. `silent`: the heartbeats have
stopped, because the hosts do not answer."""

_RECENT = 20
"""Number of records from which the trend of the loss and the time left are computed."""
_QUIET = 30.0
"""Seconds without a heartbeat after which a run is silent. Heartbeats come every two seconds."""


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint."""

    step: int
    age: float
    """Seconds since it was written."""


@dataclass(frozen=True)
class Losses:
    """The training loss and its trend."""

    last: float
    """Mean over the last recorded steps."""
    change: float | None
    """Difference from the mean over as many records before; None if there are too few."""
    steps: int
    """Steps between the last records of both means."""


@dataclass(frozen=True)
class ValidationLosses:
    """The last and the lowest validation loss."""

    last: float
    step: int
    best: float
    best_step: int


@dataclass(frozen=True)
class RunStatus:
    """Status of one run. Unknown values are None."""

    run: str
    """Folder of the run."""
    state: State
    quiet: float | None
    """Seconds since the last heartbeat of any rank or the last record."""
    step: int
    share: float
    """Share of the budget that is spent."""
    budget: str
    """Amount and axis of the budget, as text."""
    left: float | None
    """Seconds until the budget is spent, at the recent speed."""
    loss: Losses | None
    validation: ValidationLosses | None
    speed: dict[str, Any]
    """`clock` of the last training record: throughput, utilization, step times, slowest rank."""
    checkpoint: Checkpoint | None
    events: dict[str, int]
    """Kind of event -> number of events."""
    last_event: Metrics | None
    ranks: list[dict[str, Any]]
    """Last heartbeat of each rank, see `heartbeats.Heartbeat`, and its `age` in seconds."""


def read_status(folder: str | Path, now: float | None = None) -> RunStatus:
    """Read the status of a run from its folder.

    Args:
        folder: folder of a run.
        now: Unix time in seconds; by default the current time.

    Raises:
        ConfigError: if the folder holds no run.
        DamagedError: if a file of the run is corrupt.
    """
    now = time.time() if now is None else now
    run = RunFolder(folder)
    config = run.load_config()
    records = read_metrics(run.metrics_file)
    train = [record for record in records if record["split"] == "train"]
    valid = [record for record in records if record["split"] == "valid"]
    events = [record for record in records if record["split"] == EVENT]
    ranks = _heartbeats(run.folder / "ranks", now)
    ages = [rank["age"] for rank in ranks]
    ages += [now - record[CLOCK]["time"] for record in records if CLOCK in record]
    speed = dict(train[-1][CLOCK]) if train else {}
    state = _state(run, ranks, records)
    share = budget_share(train[-1], config.training.budget) if train else 0.0
    return RunStatus(
        run=str(folder),
        state=state,
        quiet=min(ages, default=None),
        step=max((record["step"] for record in records), default=0),
        share=share,
        budget=f"{config.training.budget.amount:,.0f} {config.training.budget.axis}",
        left=None if state == "finished" else _left(train, config),
        loss=_losses(train),
        validation=_validation(valid),
        speed=speed,
        checkpoint=_checkpoint(run.checkpoints, now),
        events=dict(Counter(event["kind"] for event in events)),
        last_event=events[-1] if events else None,
        ranks=ranks,
    )


def member_folders(folder: str | Path) -> list[Path]:
    """Return the run folders of a comparison; empty if the folder holds none."""
    members = Path(folder) / "members"
    return sorted(path.parent for path in members.glob("*/config.yaml"))


def _left(train: list[Metrics], config: RunConfig) -> float | None:
    recent = train[-_RECENT:]
    if len(recent) < 2:
        return None
    first, last = (budget_share(recent[i], config.training.budget) for i in (0, -1))
    gained = last - first
    parts = ("seconds", "validation_seconds", "checkpoint_seconds")
    seconds = sum(record[CLOCK][part] for record in recent[1:] for part in parts)
    return (1.0 - last) * seconds / gained if gained > 0 else None


def _losses(train: list[Metrics]) -> Losses | None:
    known = [record for record in train if record.get("loss") is not None]
    if not known:
        return None
    count = min(_RECENT, max(1, len(known) // 2))
    last, before = known[-count:], known[-2 * count : -count]

    def mean(records: list[Metrics]) -> float:
        return float(sum(record["loss"] for record in records) / len(records))

    if not before:
        return Losses(mean(last), None, 0)
    return Losses(mean(last), mean(last) - mean(before), last[-1]["step"] - before[-1]["step"])


def _validation(valid: list[Metrics]) -> ValidationLosses | None:
    known = [record for record in valid if record.get("loss") is not None]
    if not known:
        return None
    best = min(known, key=lambda record: float(record["loss"]))
    return ValidationLosses(known[-1]["loss"], known[-1]["step"], best["loss"], best["step"])


def _checkpoint(folder: Path, now: float) -> Checkpoint | None:
    steps = steps_saved(folder)
    if not steps:
        return None
    return Checkpoint(steps[-1], now - checkpoint_path(folder, steps[-1]).stat().st_mtime)


def _heartbeats(folder: Path, now: float) -> list[dict[str, Any]]:
    beats = []
    for file in sorted(folder.glob("rank-*.json")):
        heartbeat = read_heartbeat(folder, int(file.stem.removeprefix("rank-")))
        with suppress(FileNotFoundError):  # The run has just ended.
            if heartbeat is not None:  # None while it is being written.
                beats.append({**asdict(heartbeat), "age": now - file.stat().st_mtime})
    return beats


def _state(run: RunFolder, ranks: list[dict[str, Any]], records: list[Metrics]) -> State:
    if run.finished:
        return "finished"
    if any(rank["state"] != ALIVE for rank in ranks):
        return "failed"
    if ranks:
        return "training" if min(rank["age"] for rank in ranks) <= _QUIET else "silent"
    if records and records[-1].get("kind") == "failed":
        return "failed"
    return "stopped" if records else "begun"
