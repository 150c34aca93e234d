"""What a monitored run leaves: records, TensorBoard, traces, and the same again after a resume."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from megapt.checkpoint.run_folder import RunFolder
from megapt.config import RunConfig
from megapt.data.budget import Spent
from megapt.monitoring.board import hyperparameters
from megapt.monitoring.metrics import read_metrics, without_clock
from megapt.monitoring.monitor import Monitor
from megapt.monitoring.profiling import Profiler
from megapt.monitoring.throughput import StepTimes
from tests.training.runs import ALONE, run_config

TIMES = StepTimes(data=0.25, compute=0.5, other=0.25)


def spent_after(step: int) -> Spent:
    """Half of the budget of 2000 tokens is spent after ten steps."""
    return Spent(100.0 * step, 110.0 * step, 20.0 * step, 1e6 * step, float(step))


def config_of(folder: Path, **monitor: Any) -> RunConfig:
    (folder / "run").mkdir(exist_ok=True)
    return run_config(folder, folder / "run", monitor=monitor, training={"log_every": 2})


def go(config: RunConfig, first: int, last: int) -> None:
    """Pretend to train the steps from `first` to `last`, and end in the middle of things."""
    monitor = Monitor(RunFolder(config.output), config, ALONE, first - 1, spent_after(first - 1))
    if first > 1:
        monitor.event(first - 1, "resumed")
    for step in range(first, last + 1):
        monitor.begin(step)
        torch.ones(8, 8) @ torch.ones(8, 8)
        monitor.step(step, TIMES)
        if step % 2 == 0:
            monitor.train(step, {"loss": 10.0 / step, "lr": 0.5, **spent_after(step).as_dict()})
        if step % 4 == 0:
            with monitor.pause("validation"):
                time.sleep(0.01)
            written = [f"text {step}", "two\nlines *as* they are"]
            monitor.valid(step, {"loss": 11.0 / step, **spent_after(step).as_dict()}, written)
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
        "utilisation": 0.1,
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
    monitor = Monitor(RunFolder(config.output), config, ALONE, 0, Spent())
    for step in (2, 5):
        monitor.event(step, "skipped", reason="loss nan")
    monitor.close()
    again = Monitor(RunFolder(config.output), config, ALONE, 3, spent_after(3))
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


def test_chosen_steps_are_traced(tmp_path: Path) -> None:
    config = config_of(tmp_path, profile_from=3, profile_steps=2)
    go(config, 1, 5)
    folder = tmp_path / "run" / "profile"
    assert sorted(path.name for path in folder.iterdir()) == ["steps-3-4.json.gz", "steps-3-4.txt"]
    trace = json.loads(gzip.decompress((folder / "steps-3-4.json.gz").read_bytes()))
    assert trace["traceEvents"]
    assert "aten::mm" in (folder / "steps-3-4.txt").read_text()


def test_a_trace_that_the_run_ends_in_has_the_steps_that_were_done(tmp_path: Path) -> None:
    go(config_of(tmp_path, profile_from=3, profile_steps=100), 1, 4)
    folder = tmp_path / "run" / "profile"
    assert sorted(path.name for path in folder.iterdir()) == ["steps-3-4.json.gz", "steps-3-4.txt"]
    assert json.loads(gzip.decompress((folder / "steps-3-4.json.gz").read_bytes()))["traceEvents"]


@pytest.mark.parametrize(("first", "last"), [(1, 2), (4, 6)])
def test_without_its_first_step_there_is_no_trace(tmp_path: Path, first: int, last: int) -> None:
    """The run ends before it, or goes on after its beginning."""
    config = config_of(tmp_path, profile_from=3, profile_steps=2)
    go(config, first, last)
    assert not (tmp_path / "run" / "profile").exists()


def test_a_step_that_was_not_finished_is_no_trace(tmp_path: Path) -> None:
    profiler = Profiler(tmp_path / "profile", 1, 2, torch.device("cpu"))
    profiler.before(1)
    profiler.close()
    assert not (tmp_path / "profile").exists()


def test_without_a_terminal_the_console_gets_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    go(config_of(tmp_path, peak_flops=1e7), 1, 3)
    line = capsys.readouterr().err
    assert re.fullmatch(
        r"run:  10\.0%, \d+ s left  step 2  loss 5\.000  100 tokens/s  MFU 10\.0%\n", line
    )
