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
    """Print how a run stands, or each member of a comparison.

    Args:
        folder: of either.
        as_json: print JSON instead.
        watch: again every few seconds, until all are finished or Ctrl-C.

    Raises:
        ConfigError: if the folder holds neither.
        DamagedError: if what it holds is damaged.
    """
    console = Console(highlight=False)
    found = _read(folder)
    if as_json:
        _print_json(found, folder)
    elif not watch:
        _print(console, found)
    elif console.is_terminal:
        with Live(_view(found), console=console, auto_refresh=False) as live:
            while _go_on(found):
                found = _read(folder)
                live.update(_view(found), refresh=True)
    else:
        _print(console, found)
        while _go_on(found):
            found = _read(folder)
            _print(console, found)


def _go_on(found: Sequence[RunStatus]) -> bool:
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
    """Print for people; where there is no terminal, plain lines as long as they are."""
    if console.is_terminal:
        console.print(_view(found))
        return
    for status in found:
        print(f"{status.run}: {status.state}")
        for name, value in _rows(status):
            print(f"  {name:<13} {value}")


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
    """Return (what, its figures) of all that is known of a run."""
    rows = [("step", f"{status.step:,}, {status.share:.1%} of {status.budget}")]
    if status.state != "finished" and status.quiet is not None:
        rows.append(("last sign", f"{duration(status.quiet)} ago"))
    if status.loss is not None:
        text = f"{status.loss.last:.4f}"
        if status.loss.change is not None:
            text += f" ({status.loss.change:+.4f} in {status.loss.steps:,} steps)"
        rows.append(("loss", text))
    if status.validation is not None:
        held = status.validation
        text = f"{held.last:.4f} after step {held.step:,}"
        if held.best_step != held.step:
            text += f"; best {held.best:.4f} after step {held.best_step:,}"
        rows.append(("held-out loss", text))
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
    """Say how many ranks there are, and what the one does that is to blame or still for longest."""
    blame = (KILLED, FAILED, HUNG)

    def key(rank: dict[str, Any]) -> tuple[int, int, float]:
        # Of those that hang, the others wait for the one with the fewest beats.
        worst = len(blame) - blame.index(rank["state"]) if rank["state"] in blame else 0
        return worst or int(rank["state"] != ALIVE), -int(rank["beats"]), float(rank["still"])

    living = all(rank["state"] == ALIVE for rank in status.ranks)
    last = max(status.ranks, key=(lambda rank: float(rank["still"])) if living else key)
    where = f"rank {last['rank']} on {last['host']} (pid {last['pid']})"
    if last["state"] != ALIVE:
        return f"{len(status.ranks)}; {where} {last['state']} in step {last['step']:,}"
    doing = f"{where} in step {last['step']:,}, {last['doing']}"
    return f"{len(status.ranks)}; longest at one thing: {doing}, for {duration(last['still'])}"


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
