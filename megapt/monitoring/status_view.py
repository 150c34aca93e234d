"""The command `megapt status`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from megapt.monitoring.metrics import CLOCK
from megapt.monitoring.progress import duration
from megapt.monitoring.status import RunStatus, member_folders, read_status
from megapt.resilience.heartbeats import ALIVE, FAILED, HUNG, KILLED

_SECONDS_BETWEEN = 5.0
_STYLES = {"training": "green", "failed": "bold red", "silent": "bold red"}


def show_status(folder: str, as_json: bool = False, watch: bool = False) -> None:
    """Print the status of a run, or of each member of a comparison.

    Args:
        folder: folder of a run or of a comparison.
        as_json: whether to print JSON.
        watch: whether to print it again every few seconds, until all runs are finished or Ctrl-C.

    Raises:
        ConfigError: if the folder holds neither a run nor a comparison.
        DamagedError: if a file of a run is corrupt.
    """
    console = Console(highlight=False)
    found = _read(folder)
    if as_json:
        _print_json(found, folder)
    elif not watch:
        _print(console, found)
    elif console.is_terminal:
        with Live(_view(found), console=console, auto_refresh=False) as live:
            while _wait_unless_finished(found):
                found = _read(folder)
                live.update(_view(found), refresh=True)
    else:
        _print(console, found)
        while _wait_unless_finished(found):
            found = _read(folder)
            _print(console, found)


def _wait_unless_finished(found: Sequence[RunStatus]) -> bool:
    if all(status.state == "finished" for status in found):
        return False
    time.sleep(_SECONDS_BETWEEN)
    return True


def _read(folder: str) -> list[RunStatus]:
    members = member_folders(folder)
    if members and not (Path(folder) / "config.yaml").is_file():
        return [read_status(member) for member in members]
    return [read_status(folder)]


def _print_json(found: Sequence[RunStatus], folder: str) -> None:
    if found[0].run == folder:
        print(json.dumps(asdict(found[0]), ensure_ascii=False))
        return
    members = {Path(status.run).name: asdict(status) for status in found}
    print(json.dumps({"members": members}, ensure_ascii=False))


def _print(console: Console, found: Sequence[RunStatus]) -> None:
    """Print as text; without a terminal, as plain lines without wrapping."""
    if console.is_terminal:
        console.print(_view(found))
        return
    for status in found:
        print(f"{status.run}: {status.state}")
        for name, value in _rows(status):
            print(f"  {name:<15} {value}")


def _view(found: Sequence[RunStatus]) -> RenderableType:
    views: list[RenderableType] = []
    for status in found:
        style = _STYLES.get(status.state, "yellow")
        views.append(Text.assemble((status.run, "bold"), "  ", (status.state, style)))
        grid = Table.grid(padding=(0, 2), pad_edge=True)
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in _rows(status):
            grid.add_row(name, Text(value))
        views.append(grid)
    return Group(*views)


def _rows(status: RunStatus) -> list[tuple[str, str]]:
    """Return (name, value) of everything that is known about a run."""
    rows = [("step", f"{status.step:,}, {status.share:.1%} of {status.budget}")]
    if status.state != "finished" and status.quiet is not None:
        rows.append(("last activity", f"{duration(status.quiet)} ago"))
    if status.loss is not None:
        text = f"{status.loss.last:.4f}"
        if status.loss.change is not None:
            text += f" ({status.loss.change:+.4f} in {status.loss.steps:,} steps)"
        rows.append(("loss", text))
    if status.validation is not None:
        losses = status.validation
        text = f"{losses.last:.4f} after step {losses.step:,}"
        if losses.best_step != losses.step:
            text += f"; best {losses.best:.4f} after step {losses.best_step:,}"
        rows.append(("validation loss", text))
    if status.speed:
        rows += _speed_rows(status)
    if status.left is not None:
        rows.append(("time left", duration(status.left)))
    if status.checkpoint is not None:
        age = duration(status.checkpoint.age)
        rows.append(("checkpoint", f"after step {status.checkpoint.step:,}, {age} ago"))
    if status.events:
        text = ", ".join(f"{count} {kind}" for kind, count in status.events.items())
        rows.append(("events", text))
    if status.last_event is not None:
        what = {
            k: v for k, v in status.last_event.items() if k not in ("split", "step", "kind", CLOCK)
        }
        text = f"{status.last_event['kind']} after step {status.last_event['step']:,}"
        rows.append(("last event", " ".join([text, *(f"{k}={v}" for k, v in what.items())])))
    if status.ranks:
        rows.append(("ranks", _ranks(status)))
    return rows


def _ranks(status: RunStatus) -> str:
    """Return the number of ranks, and the activity of the rank that failed or is still longest."""
    failures = (KILLED, FAILED, HUNG)  # the worst first

    def key(rank: dict[str, Any]) -> tuple[int, int, float]:
        # If several ranks hang, the others wait for the one with the fewest heartbeats.
        known = rank["state"] in failures
        severity = len(failures) - failures.index(rank["state"]) if known else 0
        return severity or int(rank["state"] != ALIVE), -int(rank["beats"]), float(rank["still"])

    all_alive = all(rank["state"] == ALIVE for rank in status.ranks)
    shown = max(status.ranks, key=(lambda rank: float(rank["still"])) if all_alive else key)
    where = f"rank {shown['rank']} on {shown['host']} (pid {shown['pid']})"
    if shown["state"] != ALIVE:
        return f"{len(status.ranks)}; {where} {shown['state']} in step {shown['step']:,}"
    doing = f"{where} in step {shown['step']:,}, {shown['doing']}"
    return f"{len(status.ranks)}; longest at one thing: {doing}, for {duration(shown['still'])}"


def _speed_rows(status: RunStatus) -> list[tuple[str, str]]:
    speed = status.speed
    text = f"{speed['tokens_per_second']:,.0f} tokens/s"
    if "utilization" in speed:
        text += f", MFU {speed['utilization']:.1%}"
    if "data_share" in speed:
        text += f", {speed['data_share']:.1%} waiting for data"
    rows = [("speed", text)]
    if "step_p50" in speed:
        times = f"{speed['step_p50']:.3g} s, 99 % below {speed['step_p99']:.3g} s"
        rows.append(("a step takes", f"{times}, longest {speed['step_max']:.3g} s"))
    if "slowest_rank" in speed:
        text = f"{speed['slowest_rank']} on {speed['slowest_host']}"
        rows.append(("slowest rank", f"{text}, {speed['slowest_ratio']:.2f} times the median"))
    rows.append(("memory", f"{speed['memory'] / 2**30:.2f} GiB at most on a rank"))
    return rows
