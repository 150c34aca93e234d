"""What a monitored run leaves: records, TensorBoard, and the same again after a resume."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import Origins, RunConfig
from megapt.data.budget import Spent
from megapt.monitoring.metrics import read_metrics, without_clock
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.throughput import StepTimes
from megapt.monitoring.trackers import find_trackers
from megapt.monitoring.trackers.tensorboard import hyperparameters
from tests.training.runs import ALONE, run_config

TIMES = StepTimes(data=0.25, compute=0.5, other=0.25)


def spent_after(step: int) -> Spent:
    """Half of the budget of 2000 tokens is spent after ten steps."""
    return Spent(100.0 * step, 110.0 * step, 20.0 * step, 1e6 * step, float(step))


def config_of(folder: Path, **monitor: Any) -> RunConfig:
    (folder / "run").mkdir(exist_ok=True)
    return run_config(folder, folder / "run", monitor=monitor, training={"log_every": 2})


def monitor_of(config: RunConfig, done: int) -> Monitor:
    """That of a run after `done` steps."""
    trackers = find_trackers(config, Origins())
    return Monitor(RunFolder(config.output), config, trackers, ALONE, done, spent_after(done))


def go(config: RunConfig, first: int, last: int) -> None:
    """Pretend to train the steps from `first` to `last`, and end in the middle of things."""
    monitor = monitor_of(config, first - 1)
    if first > 1:
        monitor.event(first - 1, "resumed")
    for step in range(first, last + 1):
        monitor.step(TIMES)
        if step % 2 == 0:
            monitor.train(step, {"loss": 10.0 / step, "lr": 0.5, **spent_after(step).as_dict()})
        if step % 4 == 0:
            with monitor.pause("validation"):
                time.sleep(0.01)
            written = [f"text {step}", "two\nlines *as* they are"]
            spent = spent_after(step).as_dict()
            monitor.validation(step, {"loss": 11.0 / step, **spent, "samples": written})
    monitor.close()


def records_of(config: RunConfig) -> list[dict[str, Any]]:
    return read_metrics(RunFolder(config.output).metrics_file)


def board_of(config: RunConfig) -> EventAccumulator:
    board = EventAccumulator(str(Path(config.output) / "tensorboard"), {"tensors": 0})
    board.Reload()
    return board


def test_a_record_holds_the_clock_apart(tmp_path: Path) -> None:
    config = config_of(tmp_path, peak_flops=1e7)
    began = time.time()
    go(config, 1, 6)
    train = [record for record in records_of(config) if record["split"] == "train"]
    assert [record["step"] for record in train] == [2, 4, 6]
    clock = train[-1]["clock"]
    assert began <= clock.pop("time") <= time.time()
    assert clock.pop("memory") > 0
    assert clock.pop("validation_seconds") >= 0.01
    assert clock == {
        "seconds": 2.0,
        "tokens_per_second": 100.0,
        "positions_per_second": 110.0,
        "targets_per_second": 20.0,
        "utilization": 0.1,
        "data_share": 0.25,
        **dict.fromkeys(("step_p50", "step_p90", "step_p99", "step_max"), 1.0),
        "checkpoint_seconds": 0.0,
    }
    (valid,) = [record for record in records_of(config) if record["split"] == "valid"]
    assert valid["clock"]["seconds"] >= 0.01
    assert valid["samples"] == ["text 4", "two\nlines *as* they are"]


def test_a_resumed_run_leaves_what_it_would_have_left_unbroken(tmp_path: Path) -> None:
    folders = [tmp_path / "whole", tmp_path / "broken"]
    for folder in folders:
        folder.mkdir()
    whole, broken = map(config_of, folders)
    go(whole, 1, 8)
    go(broken, 1, 7)  # up to step 7; the checkpoint is that of step 3
    go(broken, 4, 8)
    assert without_clock(records_of(broken)) == without_clock(records_of(whole))
    events = [record for record in records_of(broken) if record["split"] == "event"]
    assert [(event["step"], event["kind"]) for event in events] == [(3, "resumed")]
    for tag in ("train/loss", "valid/loss"):
        shown = [
            [(event.step, event.value) for event in board_of(config).Scalars(tag)]
            for config in (whole, broken)
        ]
        assert shown[0] == shown[1]
        assert shown[0]


def test_events_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    monitor = monitor_of(config, 0)
    for step in (2, 5):
        monitor.event(step, "skipped", reason="loss nan")
    monitor.close()
    again = monitor_of(config, 3)
    again.event(3, "resumed")
    again.close()
    events = [(record["step"], record["kind"]) for record in records_of(config)]
    assert events == [(2, "skipped"), (3, "resumed")]
    assert records_of(config)[0]["reason"] == "loss nan"


def test_tensorboard_has_sections(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    go(config, 1, 8)
    board = board_of(config)
    tags = set(board.Tags()["scalars"])
    assert {"train/loss", "train/lr", "clock/tokens_per_second", "clock/memory"} <= tags
    assert {"valid/loss", "valid/clock/seconds"} <= tags
    assert not [tag for tag in tags if tag.startswith("train/clock")]
    written = [
        (event.step, event.tensor_proto.string_val[0].decode())
        for event in board.Tensors("samples/2/text_summary")
    ]
    assert written == [(step, "    two\n    lines *as* they are") for step in (4, 8)]


def test_tensorboard_compares_runs_by_their_settings(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    go(config, 1, 2)
    board = board_of(config)
    plugin = HParamsPluginData.FromString
    start = plugin(board.summary_metadata["_hparams_/session_start_info"].plugin_data.content)
    shown = start.session_start_info.hparams
    assert set(shown) == set(hyperparameters(config))
    assert shown["optimizer.lr"].number_value == config.optimizer.lr
    assert shown["objective.name"].string_value == "arlm"
    assert shown["window"].number_value == 48
    about = plugin(board.summary_metadata["_hparams_/experiment"].plugin_data.content)
    metrics = [metric.name.tag for metric in about.experiment.metric_infos]
    assert set(metrics) == {"train/loss", "valid/loss"}


def test_without_a_terminal_the_console_gets_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(config_of(tmp_path, peak_flops=1e7), 1, 3)
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"run:  10\.0%, \d+ s left  step 2  loss 5\.000  100 tokens/s  MFU 10\.0%\n", line
    )
