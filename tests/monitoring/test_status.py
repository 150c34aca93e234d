"""`megapt status` of runs that train, have stopped, failed, or are finished."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.data.budget import Spent
from megapt.errors import ConfigError, DamagedError, MegaptError
from megapt.monitoring import status_view
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.status import read_status
from megapt.monitoring.status_view import show_status
from megapt.monitoring.throughput import StepTimes
from megapt.monitoring.trackers import find_trackers
from megapt.resilience.heartbeats import Heartbeat, write_heartbeat
from tests.ranks import run_ranks
from tests.training.runs import ALONE, run_config, train

TIMES = StepTimes(data=0.25, compute=0.5, other=0.25)


def spent_after(step: int) -> Spent:
    return Spent(100.0 * step, 110.0 * step, 20.0 * step, 1e6 * step, 2.0 * step)


def begun(folder: Path) -> RunConfig:
    """A run folder as it is before the first step."""
    config = run_config(folder, folder, monitor={"peak_flops": 1e6})
    folder.mkdir(parents=True)
    text = yaml.safe_dump(config.model_dump())
    RunFolder(folder).config_file.write_text(text, encoding="utf-8")
    return config


def go(config: RunConfig, steps: int) -> None:
    trackers = find_trackers(config, Origins())
    monitor = Monitor(RunFolder(config.output), config, trackers, ALONE, 0, Spent())
    for step in range(1, steps + 1):
        monitor.step(TIMES)
        spent = spent_after(step).as_dict()
        loss = None if step == 3 else 5.0 - step / 10
        monitor.train(step, {"loss": float("nan") if loss is None else loss, **spent})
        if step % 4 == 0:
            monitor.validation(step, {"loss": abs(step - 5.0), **spent})
            monitor.event(step, "checkpoint", seconds=0.5)
            saved = Path(config.output) / "checkpoints" / f"step-{step:08}"
            saved.mkdir(parents=True)
            os.utime(saved, (0, time.time() - 3000))
    monitor.event(steps, "skipped", reason="loss nan")
    monitor.close()


def beat(folder: Path, **what: Any) -> None:
    ranks = folder / "ranks"
    ranks.mkdir(exist_ok=True)
    write_heartbeat(ranks, Heartbeat(**{"rank": 0, "host": "n1", "pid": 7, "step": 9, **what}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ten steps of twenty are done."""
    go(begun(tmp_path / "run"), 10)
    return tmp_path / "run"


def test_figures_of_a_run(run: Path) -> None:
    status = read_status(run)
    assert (status.step, status.share) == (10, 0.5)
    assert status.budget == "2,000 raw_tokens"
    # Nine steps of 2 s for 45 %: another 50 % at that speed.
    assert status.left == pytest.approx(0.5 * 18 / 0.45, rel=0.01)
    assert status.loss is not None
    # Steps 7 to 10 beside 2, 4, 5, 6.
    assert status.loss.last == pytest.approx(5 - 0.85)
    assert status.loss.change == pytest.approx(-(8.5 - 4.25) / 10)
    assert status.loss.steps == 4
    assert status.validation is not None
    assert asdict(status.validation) == {"last": 3.0, "step": 8, "best": 1.0, "best_step": 4}
    assert status.speed["tokens_per_second"] == 50.0
    assert status.speed["utilization"] == 0.5
    assert status.checkpoint is not None
    assert status.checkpoint.step == 8
    assert status.checkpoint.age == pytest.approx(3000, abs=60)
    assert status.events == {"not_finite": 1, "checkpoint": 2, "skipped": 1}
    assert status.last_event is not None
    assert status.last_event["reason"] == "loss nan"


def test_a_run_that_was_just_begun(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    status = read_status(tmp_path / "run")
    assert (status.state, status.step, status.share) == ("begun", 0, 0.0)
    assert (
        status.loss is status.validation is status.left is status.checkpoint is status.quiet is None
    )


def test_states(run: Path) -> None:
    assert read_status(run).state == "stopped"
    beat(run)
    beat(run, rank=1, doing="data", still=42.0)
    assert read_status(run).state == "training"
    assert [rank["rank"] for rank in read_status(run).ranks] == [0, 1]
    later = read_status(run, time.time() + 600)
    assert later.state == "silent"
    assert later.quiet == pytest.approx(600, abs=60)
    beat(run, rank=1, state="hung")
    assert read_status(run).state == "failed"
    RunFolder(run).summary_file.write_text("{}")
    status = read_status(run)
    assert status.state == "finished"
    assert status.left is None


def test_plain_lines_where_there_is_no_terminal(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beat(run)
    beat(run, rank=1, host="n2", doing="data", still=42.0)
    show_status(str(run))
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{run}: training"
    rows = {line[2:17].strip(): line[18:] for line in lines}
    assert rows.pop("memory").endswith("GiB at most on a rank")
    assert rows.pop("last activity").endswith(" s ago")
    assert rows == {
        "step": "10, 50.0% of 2,000 raw_tokens",
        "loss": "4.1500 (-0.4250 in 4 steps)",
        "validation loss": "3.0000 after step 8; best 1.0000 after step 4",
        "speed": "50 tokens/s, MFU 50.0%, 25.0% waiting for data",
        "a step takes": "1 s, 99 % below 1 s, longest 1 s",
        "time left": "20 s",
        "checkpoint": "after step 8, 50 min ago",
        "events": "1 not_finite, 2 checkpoint, 1 skipped",
        "last event": "skipped after step 10 reason=loss nan",
        "ranks": "2; longest at one thing: rank 1 on n2 (pid 7) in step 9, data, for 42 s",
    }


@pytest.mark.parametrize("width", [40, 60, 200])
def test_a_terminal_of_any_width(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    def terminal(**settings: Any) -> Console:
        return Console(force_terminal=True, width=width, color_system=None, **settings)

    monkeypatch.setattr(status_view, "Console", terminal)
    show_status(str(run))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for told in ("stopped", "50.0%", "best 1.0000", "tokens/s", "skipped after step 10"):
        assert told in text


def test_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(str(run), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["state"], told["step"]) == (str(run), "stopped", 10)
    assert told["validation"]["best_step"] == 4


def test_the_members_of_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = tmp_path / "compare" / "members"
    go(begun(members / "mlm"), 4)
    begun(members / "arlm")
    show_status(str(tmp_path / "compare"), as_json=True)
    told = json.loads(capsys.readouterr().out)["members"]
    assert {name: status["state"] for name, status in told.items()} == {
        "arlm": "begun",
        "mlm": "stopped",
    }
    show_status(str(tmp_path / "compare"))
    heads = [line for line in capsys.readouterr().out.splitlines() if line[0] != " "]
    assert heads == [f"{members / 'arlm'}: begun", f"{members / 'mlm'}: stopped"]


def nothing(folder: Path) -> None:
    folder.mkdir()


def damaged_metrics(folder: Path) -> None:
    begun(folder)
    (folder / "metrics.jsonl").write_text('{"split"\n{}\n')


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (lambda folder: None, ConfigError, "no run here"),
        (nothing, ConfigError, "no run here"),
        (damaged_metrics, DamagedError, "line 1 is corrupt"),
    ],
)
def test_a_wrong_folder_is_told_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], kind: type[MegaptError], told: str
) -> None:
    make(tmp_path / "run")
    with pytest.raises(kind, match=told) as caught:
        show_status(str(tmp_path / "run"))
    assert "\n" not in str(caught.value)


def test_watching_ends_with_the_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sleep(seconds: float) -> None:
        RunFolder(run).summary_file.write_text("{}")

    monkeypatch.setattr(time, "sleep", sleep)
    show_status(str(run), watch=True)
    heads = [line for line in capsys.readouterr().out.splitlines() if line[0] != " "]
    assert heads == [f"{run}: stopped", f"{run}: finished"]


def test_a_finished_run(corpus_folder: Path, tmp_path: Path) -> None:
    """Of a real one."""
    config = run_config(corpus_folder, tmp_path / "run", checkpoint={"every": 2})
    run_ranks(2, train, config)
    status = read_status(config.output)
    summary = RunFolder(config.output).summary()
    assert (status.state, status.share) == ("finished", 1.0)
    assert status.step == summary["steps"]
    assert status.validation is not None
    assert status.validation.last == summary["validation"]["loss"]
    assert status.checkpoint is not None
    assert status.checkpoint.step == summary["steps"]
    assert status.speed["slowest_rank"] in (0, 1)
    assert status.ranks == []
