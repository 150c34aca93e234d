"""What cannot run is refused by every command that is asked for it, in the same line."""

from __future__ import annotations

from pathlib import Path

import pytest

from launchers.slurm import app as slurm_app
from tests.cli.answers import Megapt, write_yaml
from tests.training.runs import run_config

# One device as large as it may be, so that nothing is refused for its memory.
CLUSTER = {
    "cpu_ranks_per_node": 1,
    "cpus_per_node": 1,
    "gpus_per_node": 0,
    "time": "1:00:00",
    "device": {
        "name": "this one",
        "memory": 1e15,
        "peak_flops": {"fp32": 1e12, "bf16": 1e12},
        "interconnect": 1e10,
        "network": 1e10,
    },
}
NVME = "parallel.zero_stage=3 parallel.offload_optimizer=nvme parallel.nvme_path=/tmp"
SHORT = "schedule.window_rampup=[{until: 0.5, length: 17}]"

# Words of the command line, and a part of the line that refuses them.
WRONG = [
    ("modle.num_layers=2", "modle: unknown key; did you mean 'model'?"),
    ("model.num_layers=0", "model.num_layers: should be greater than 0"),
    ("model.num_heads=5", "hidden_size 16 should be a multiple of num_heads 5"),
    ("optimizer.lr=fast", "optimizer.lr: should be a valid number"),
    ("training.precision=fp8", "training.precision: should be "),
    ("parallel.offload_param=cpu", "offload_param needs zero_stage 3, not 0"),
    ("monitor.trackers=[jsonl,jsonl]", "monitor.trackers: names 'jsonl' twice"),
    (
        "parallel.sequence_parallel_size=3",
        "parallel.sequence_parallel_size: 3 ranks do not divide the 1 ranks",
    ),
    (
        "training.micro_batch_size=3",
        "training.global_batch_size: 8 windows are not divisible by micro_batch_size 3",
    ),
    (
        "schedule.batch_size_rampup=[{until: 0.5, global_batch_size: 3}]",
        "schedule.batch_size_rampup: 3 windows are not",
    ),
    (
        "schedule.batch_size_rampup=[{until: 1.0e-9, global_batch_size: 8},"
        "{until: 2.0e-9, global_batch_size: 8}]",
        "holds no step of 8 windows",
    ),
    (SHORT, "schedule.window_rampup: windows of 48 tokens do not divide into parts of 17"),
    (
        f"{SHORT} training.budget.axis=targets",
        "schedule.window_rampup: needs a budget in raw_tokens",
    ),
    ("optimizer.name=adamv", "optimizer.name: no optimizer named 'adamv'"),
    ("optimizer.file=none.py", "none.py: no such Python file"),
    ("optimizer.dampening=0.1", "optimizer.dampening: unknown key"),
    ("optimizer.name=muon parallel.zero_stage=3", "optimizer.name: 'muon' runs at"),
    ("optimizer.name=adafactor parallel.zero_stage=1", "optimizer.name: 'adafactor' runs at"),
    (f"optimizer.ema_decay=0.9 {NVME}", "optimizer.ema_decay: weights on NVMe are not averaged"),
    ("training.precision=fp16", "training.precision: fp16 needs a GPU"),
    (
        "parallel.zero_stage=3 parallel.zero_quantized_weights=true",
        "parallel.zero_quantized_weights: ",
    ),
    ("parallel.zero_stage=3 parallel.zero_hpz_partition_size=2", "2 ranks do not divide the 1"),
    ("deepspeed.train_batch_size=8", "train_batch_size: set by training.global_batch_size"),
    ("deepspeed.zero_optimization.stage=3", "stage: set by parallel.zero_stage"),
    ("deepspeed.nonsense=1", "nonsense"),
    ("training.attention=gruped", "no attention backend named 'gruped'; did you mean 'grouped'?"),
    ("training.attention=rows", "training.attention: 'rows' needs batches in rows"),
    ("training.attention=varlen", "training.attention: 'varlen'"),
    ("training.attention=flex training.row_length=128 model.dropout=0.1", "model.dropout: 0.1"),
    ("training.row_length=20", "training.row_length: 20 positions are too few"),
    ("monitor.trackers=[tensorbord]", "no tracker named 'tensorbord'; did you mean 'tensorboard'?"),
    ("monitor.trackers=[{name: prometheus}]", "monitor.trackers.0.path: this key is required"),
    ("data.corpus=nowhere", "nowhere/manifest.json: no such file"),
    ("objective=mlmm", "OBJECTIVE: no preset named 'mlmm'; did you mean 'mlm'?"),
    ("objective.name=mlmm", "OBJECTIVE.name: no objective named 'mlmm'; did you mean 'mlm'?"),
    ("objective=mlm objective.mask_rate=2.0", "OBJECTIVE.mask_rate: should be less than 1"),
    ("objective=mlm objective.mask_rat=0.2", "OBJECTIVE.mask_rat: unknown key"),
    ("objective=span_corruption objective.mean_span_length=0.0", "OBJECTIVE.mean_span_length: "),
    ("objective=mgm model.num_segments=0", "model.num_segments: 0 is too few: 'mgm'"),
    (
        "checkpoint.keep_best=2 checkpoint.metric=loss/none",
        "'loss/none' is not a validation metric",
    ),
]


@pytest.fixture
def files(corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run, a comparison of that alone, and a cluster of one rank."""
    monkeypatch.chdir(tmp_path)
    values = run_config(corpus_folder, tmp_path / "run").model_dump(exclude={"branch"})
    objective = values.pop("objective")
    write_yaml(tmp_path / "shared.yaml", values)
    shared = {"base": "shared.yaml"}
    write_yaml(tmp_path / "run.yaml", {**shared, "objective": objective})
    write_yaml(tmp_path / "compare.yaml", {**shared, "members": {"only": objective}})
    write_yaml(tmp_path / "cluster.yaml", CLUSTER)
    return tmp_path


def slurm(capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """The line with which the launcher refuses a job."""
    with pytest.raises(SystemExit) as end:
        slurm_app(["cluster.yaml", *words])
    said = capfd.readouterr()
    assert (end.value.code, said.out) == (2, "")
    [line] = said.err.splitlines()
    return line.removeprefix("megapt: error: ")


def of_member(words: list[str]) -> list[str]:
    return [
        f"members.only{word.removeprefix('objective')}" if word.startswith("objective") else word
        for word in words
    ]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[words for words, _ in WRONG])
def test_all_commands_refuse_it_in_the_same_line(
    files: Path, megapt: Megapt, capfd: pytest.CaptureFixture[str], words: str, says: str
) -> None:
    wrong = split(words)
    line = megapt("train", "run.yaml", *wrong).refusal
    assert says.replace("OBJECTIVE", "objective") in line
    cluster = ("--cluster", "cluster.yaml")
    assert megapt("train", "run.yaml", *wrong, "--dry-run").refusal == line
    assert megapt("plan", "run.yaml", *wrong, *cluster).refusal == line
    assert slurm(capfd, "run.yaml", *wrong) == line
    of_comparison = megapt("compare", "compare.yaml", *of_member(wrong)).refusal
    assert of_comparison == as_of_member(line)
    assert slurm(capfd, "compare.yaml", "--job", "compare", *of_member(wrong)) == of_comparison
    assert sorted(path.name for path in files.iterdir()) == [
        "cluster.yaml",
        "compare.yaml",
        "run.yaml",
        "shared.yaml",
    ]


def as_of_member(line: str) -> str:
    """The same line, said of the only member of a comparison."""
    line = line.replace("run.yaml", "compare.yaml")
    return line.replace(": objective", ": members.only", 1) if ": objective" in line else line


def split(words: str) -> list[str]:
    """Words of a command line; those inside brackets belong together."""
    found: list[str] = []
    for word in words.split(" "):
        last = found[-1] if found else ""
        if last.count("[") > last.count("]") or last.count("{") > last.count("}"):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("measures=[prob]", "measures.0.name: no measure named 'prob'; did you mean 'probe'?"),
        ("measures=[{name: probe, docs: 5}]", "measures.0.docs: unknown key"),
        ("measures=[probe,probe]", "measures: names 'probe' twice"),
        ("data.corpus=null data.mixture={corpora: {a: {path: a}}}", "data.mixture: a comparison"),
    ],
)
def test_what_only_a_comparison_has_is_refused_before_it_waits_in_a_queue(
    files: Path, megapt: Megapt, capfd: pytest.CaptureFixture[str], words: str, says: str
) -> None:
    line = megapt("compare", "compare.yaml", *split(words)).refusal
    assert says in line
    assert slurm(capfd, "compare.yaml", "--job", "compare", *split(words)) == line


def test_what_is_right_is_let_pass(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["run.yaml"], ["compare.yaml", "--job", "compare"]):
        with pytest.raises(SystemExit) as end:
            slurm_app(["cluster.yaml", *words])
        assert end.value.code == 0
        assert "#SBATCH" in capfd.readouterr().out
