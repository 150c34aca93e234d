"""Plans: what fits, what is recommended, what it takes, what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from megapt.cli import plan
from megapt.cli.command import add_command
from megapt.config import ClusterConfig, load_cluster
from megapt.data import open_corpora
from megapt.errors import ConfigError
from megapt.planning.command import plan_run
from megapt.planning.report import duration
from megapt.planning.text import made_up_text, piece_length
from megapt.planning.timing import best_interval, bytes_moved
from tests.patience import patience
from tests.planning.planning import DEVICE, cluster, planner, run, small_model
from tests.training.runs import run_config

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


def test_stages_hold_less_and_less() -> None:
    planned = planner(run(model={"num_layers": 8, "hidden_size": 512})).plan()
    weights = 4.0 * sum(planned.parameters.values())
    held = [stage.footprint for stage in planned.stages]
    assert [found.stage for found in held] == [0, 1, 2, 3]
    assert held[0].parts["weights"] == weights
    assert held[0].parts["optimizer"] == 2 * weights
    assert held[1].parts["optimizer"] == 3 * weights / 8
    assert held[3].parts["optimizer"] == held[1].parts["optimizer"]
    assert held[0].parts["optimizer"] > held[1].parts["optimizer"]
    assert all(found.total == max(sum(found.parts.values()), found.start) for found in held)


def test_half_precision_keeps_master_weights_and_knows_no_stage_0() -> None:
    planned = planner(run(training={"precision": "bf16"})).plan()
    size = sum(planned.parameters.values())
    assert [stage.footprint.stage for stage in planned.stages] == [1, 2, 3]
    assert planned.stages[0].footprint.parts["weights"] == 2 * size
    assert planned.stages[0].footprint.parts["optimizer"] == 12 * size / 8
    assert planned.checkpoint_bytes == (4 + 2 + 12) * size


@pytest.mark.parametrize(
    ("section", "bytes_more"),
    [
        ({"optimizer": {"name": "lion"}}, -4),
        ({"optimizer": {"ema_decay": 0.99}}, 4),
        ({"parallel": {"zero_stage": 1, "offload_optimizer": "cpu"}}, -12),
    ],
)
def test_the_optimiser_decides_what_is_held(section: dict[str, Any], bytes_more: int) -> None:
    usual = planner(run(parallel={"zero_stage": 1})).plan()
    other = planner(run(**{"parallel": {"zero_stage": 1}, **section})).plan()
    size = sum(usual.parameters.values()) / 8

    def held(planned: Any) -> float:
        (found,) = [s.footprint for s in planned.stages if s.footprint.stage == 1]
        return float(found.parts["optimizer"])

    assert held(other) - held(usual) == pytest.approx(bytes_more * size)
    offloaded = [stage.footprint.host for stage in other.stages]
    assert all(offloaded) == ("parallel" in section)


@pytest.mark.parametrize(
    ("name", "stages"), [("adamw", [0, 1, 2, 3]), ("muon", [0, 1, 2]), ("adafactor", [0])]
)
def test_stages_are_those_that_the_optimiser_runs_at(name: str, stages: list[int]) -> None:
    plan = planner(run(optimizer={"name": name})).plan()
    assert [stage.footprint.stage for stage in plan.stages] == stages
    assert plan.settings.zero_stage in stages


def test_the_largest_micro_batch_fits_and_the_next_does_not() -> None:
    config = run(training={"global_batch_size": 512})
    machines = cluster(device={"memory": 30 * MIB})
    found = planner(config, machines)
    largest = found.largest_micro_batch(3, "none")
    assert 1 <= largest < 64
    fitting, failing = (
        found.footprint(3, found.trace(size, "none"), size) for size in (largest, 2 * largest)
    )
    assert fitting.total <= 30 * MIB < failing.total


def test_recomputation_is_recommended_only_if_nothing_else_helps() -> None:
    deep = {"num_layers": 6, "hidden_size": 128}
    config = run(model=deep, training={"micro_batch_size": 1})
    roomy = planner(config).plan().settings
    assert (roomy.zero_stage, roomy.recompute, roomy.micro_batch_size) == (0, "none", 8)
    found = planner(config)
    least = {
        kind: found.footprint(3, found.trace(1, kind), 1).total for kind in ("selective", "full")
    }
    tight = cluster(device={"memory": (least["selective"] + least["full"]) / 2})
    settings = planner(config, tight).plan().settings
    assert (settings.recompute, settings.micro_batch_size) == ("full", 1)
    with pytest.raises(
        ConfigError, match=r"training\.micro_batch_size: not even 1 window fits a rank"
    ):
        planner(config, cluster(device={"memory": 0.5 * least["full"]})).plan()


def test_time_follows_from_utilization_or_from_a_measured_speed() -> None:
    config = run()
    found = planner(config)
    planned = found.plan()
    tokens = 64 * 128
    assert planned.step.compute == pytest.approx(tokens * planned.flops / (8 * 1e13 * 0.5))
    assert planned.steps == pytest.approx(1e9 / tokens)
    # Seconds of all steps, and of what is written between them.
    saves = planned.steps / planned.settings.checkpoint_every * planned.checkpoint_seconds
    assert planned.seconds == pytest.approx(planned.steps * planned.step.total + saves)
    assert planned.cost == pytest.approx(planned.seconds / 3600 * 8 * 2.0)
    assert found.plan(speed=1000.0).step.compute == pytest.approx(tokens / 8000)


@pytest.mark.parametrize("axis", ["positions", "targets", "model_flops", "wall_clock"])
def test_a_budget_on_any_axis_becomes_raw_tokens(axis: str) -> None:
    config = run("mlm", training={"budget": {"axis": axis, "amount": 1e6}})
    planned = planner(config).plan()
    of_token = {
        "positions": 130 / 128,
        "targets": 0.15,
        "model_flops": planned.flops,
        "wall_clock": planned.step.total / (64 * 128),
    }
    assert planned.tokens * of_token[axis] == pytest.approx(1e6)


def test_bytes_are_counted_by_the_ring() -> None:
    assert bytes_moved(0, 800.0, 8, micro_batches=3) == 2 * 700
    assert bytes_moved(1, 800.0, 8, micro_batches=3) == 3 * 700
    assert bytes_moved(2, 800.0, 8, micro_batches=3) == 7 * 700
    assert bytes_moved(3, 800.0, 8, micro_batches=3) == 9 * 700
    assert bytes_moved(3, 800.0, 1, micro_batches=3) == 0


def test_the_interval_between_checkpoints_loses_least() -> None:
    write, faults = 30.0, 40_000.0

    def lost(interval: float) -> float:
        return write / interval + interval / 2 / faults

    best = best_interval(write, faults)
    assert best == math.sqrt(2 * write * faults)
    assert lost(best) < min(lost(0.9 * best), lost(1.1 * best))


def test_sequence_ranks_share_activations() -> None:
    alone = planner(run(data={"window": 512})).trace(1, "none")
    shared = planner(run(data={"window": 512}, parallel={"sequence_parallel_size": 4})).trace(
        1, "none"
    )
    assert shared.trunk < 0.3 * alone.trunk


def test_70b_on_1024_ranks_is_planned_in_seconds() -> None:
    code = """
import time
from pathlib import Path
from tests.planning.planning import cluster, planner, run
model = {
    "num_layers": 80,
    "hidden_size": 8192,
    "num_heads": 64,
    "intermediate_size": 24576,
    "tie_word_embeddings": False,
}
training = {
    "precision": "bf16",
    "global_batch_size": 1024,
    "micro_batch_size": 1,
    "attention": "varlen",
}
device = {"memory": 85e9, "peak_flops": {"bf16": 1e15}}
from megapt.planning import made_up_text
config = run(model=model, training=training, data={"window": 4096})
machines = cluster(nodes=128, gpus_per_node=8, device=device)
planned = planner(config, machines, made_up_text(32_000)).plan()
assert 69e9 < sum(planned.parameters.values()) < 71e9
assert planned.settings.zero_stage == 3
assert planned.ranks == 1024
# Not ru_maxrss: what a child inherits of it is the size of the process that started it.
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
print(time.process_time(), 1024 * int(peak.split()[1]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
    )
    seconds, peak = map(float, done.stdout.split())
    assert seconds < patience(10)
    assert peak < 1.5e9


def test_a_corpus_tells_its_vocabulary_and_the_length_of_its_documents(
    corpus_folder: Path, tmp_path: Path
) -> None:
    config = run_config(corpus_folder, tmp_path / "run")
    text = open_corpora(config.data)
    assert text.vocabulary.size > 200
    assert piece_length(text, 10_000) == round(text.tokens / text.documents)
    assert piece_length(text, 16) == 16
    planned = planner(config, cluster(nodes=1, gpus_per_node=2), text).plan()
    assert planned.positions == pytest.approx(1 + 1 / piece_length(text, 48))


def test_the_command_prints_for_people_and_for_programs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(small_model(tmp_path))
    machines = str(ROOT / "configs" / "cluster" / "a100-4x8.yaml")
    plan_run(file, ["training.micro_batch_size=2"], machines, vocabulary=2000)
    printed = capsys.readouterr().out
    assert "Parameters" in printed
    assert "with micro_batch_size 2" in printed
    words = printed.split("Recommended ")[1].splitlines()[0]
    plan_run(file, words.split(), machines, vocabulary=2000, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["recommended"]["words"] == words.split()
    assert [stage["stage"] for stage in found["stages"]] == [0, 1, 2, 3]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()
    add_command(app, "plan")(plan)
    machines = str(ROOT / "configs" / "cluster" / "laptop.yaml")
    words = [str(small_model(tmp_path)), "--cluster", machines, "--vocabulary", "2000", "--json"]
    with pytest.raises(SystemExit) as end:
        app([*words, "training.micro_batch_size=1"])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["ranks"] == 1
    with pytest.raises(SystemExit) as end:
        app([*words, "model.hidden_size=3"])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "machines", "message"),
    [
        ([], "example.yaml", "device: this section is missing"),
        (["training.global_batch_size=7"], "h100-8x8.yaml", "7 windows are not divisible by micro"),
        (
            ["parallel.sequence_parallel_size=3"],
            "h100-8x8.yaml",
            "3 ranks do not divide the 64 ranks",
        ),
        (
            ["training.attention=varlen", "training.micro_batch_size=1"],
            "h100-8x8.yaml",
            "training.attention: 'varlen' computes",
        ),
        (
            ["objective=mgm", "model.num_segments=0", "training.micro_batch_size=1"],
            "h100-8x8.yaml",
            "model.num_segments: 0 is too few: 'mgm",
        ),
        (["training.precision=fp16"], "laptop.yaml", "training.precision: fp16 needs a GPU"),
    ],
)
def test_what_cannot_run_is_refused_by_path(
    tmp_path: Path, words: list[str], machines: str, message: str
) -> None:
    file, where = str(small_model(tmp_path)), str(ROOT / "configs" / "cluster" / machines)
    with pytest.raises(ConfigError, match=message):
        plan_run(file, words, where, vocabulary=2000)


def test_a_device_has_to_have_the_precision_of_the_run() -> None:
    known = {**DEVICE, "peak_flops": {"fp32": 1e14}}
    machines = ClusterConfig.model_validate({**cluster().model_dump(), "device": known})
    with pytest.raises(ConfigError, match=r"^device\.peak_flops: has no 'bf16'"):
        planner(run(training={"precision": "bf16"}), machines)


def test_without_a_corpus_a_vocabulary_is_asked_for(tmp_path: Path) -> None:
    file = str(small_model(tmp_path))
    machines = str(ROOT / "configs" / "cluster" / "h100-8x8.yaml")
    with pytest.raises(ConfigError, match=r"^nowhere/manifest\.json: no such file"):
        plan_run(file, [], machines)
    with pytest.raises(ConfigError, match="--vocabulary: should be at least 226, not 10"):
        made_up_text(10)


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "cluster").glob("*.yaml")), ids=str)
def test_every_cluster_file_that_ships_is_right(file: Path) -> None:
    machines = load_cluster(file)
    assert machines.ranks >= 1
    assert (machines.device is None) == (file.stem == "example")


def test_a_wrong_device_is_told_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    text = "gpus_per_node: 1\ncpus_per_node: 1\ntime: '1:00:00'\ndevice:\n  memory: 8e10\n  x: 1\n"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"c.yaml:6: device.x: unknown key|c.yaml:4: device.name"):
        load_cluster(file)
    with pytest.raises(ValueError, match="needs the key network"):
        cluster(device={**DEVICE, "network": None})


def test_durations_read_well() -> None:
    assert duration(1.234) == "1.23 seconds"
    assert duration(7200) == "2.0 hours"
    assert duration(86400 * 10) == "10.0 days"
