"""The command itself: what it prints, writes, submits and refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launchers.slurm import ClusterConfig, Job, app, load_cluster, render
from megapt.errors import ConfigError
from tests.launchers.clusters import CLUSTER, RUN, FakeCluster, write_cluster

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_cluster(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN, encoding="utf-8")
    return tmp_path


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        app(["cluster.yaml", "--vocabulary", "2000", *words])
    assert isinstance(end.value.code, int)
    return end.value.code


def header(cluster: ClusterConfig) -> list[str]:
    lines = render(cluster, Job.TRAIN, "runs/my run.yaml", "runs/x").splitlines()
    return [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "cluster").glob("*.yaml")), ids=str)
def test_every_cluster_file_that_ships_gives_a_script(file: Path, tmp_path: Path) -> None:
    script = render(load_cluster(file), Job.COMPARE, "compare.yaml", "a b", ["seed=1"])
    assert "{{" not in script
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


def test_the_header_asks_for_what_the_cluster_file_says(tmp_path: Path) -> None:
    changes = {"partition": "gpu", "account": "a1", "qos": "q", "log": "logs/%j.log"}
    file = write_cluster(tmp_path, **changes, sbatch=["--constraint=h100"])
    assert header(load_cluster(file)) == [
        "--job-name=train-my-run",
        "--nodes=3",
        "--ntasks-per-node=1",
        "--cpus-per-task=8",
        "--time=02:00:00",
        "--output=logs/%j.log",
        "--partition=gpu",
        "--account=a1",
        "--qos=q",
        "--gpus-per-node=2",
        "--exclusive",
        "--signal=B:USR1@180",
        "--constraint=h100",
        "--requeue",
        "--open-mode=append",
    ]
    bare = write_cluster(tmp_path, gpus_per_node=0, exclusive=False, requeue_seconds=0)
    words = " ".join(header(load_cluster(bare)))
    assert not {"--gpus", "--exclusive", "--signal", "None"} & set(words.replace("=", " ").split())


def test_the_script_is_printed_or_written(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--job", "train", "run.yaml", "seed=3", "output=runs/中 文") == 0
    printed = capsys.readouterr().out
    expected = render(
        load_cluster("cluster.yaml"),
        Job.TRAIN,
        "run.yaml",
        "runs/中 文",
        ["seed=3", "output=runs/中 文"],
    )
    assert printed == expected
    assert call("run.yaml", "--output", "job.sbatch", "seed=3", "output=runs/中 文") == 0
    assert (files / "job.sbatch").read_text(encoding="utf-8") == expected
    assert capsys.readouterr().out == ""


def test_the_script_is_handed_to_sbatch(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeCluster(files)
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    fake.command("sbatch", f"cat >{files}/submitted")
    assert call("run.yaml", "--submit") == 0
    assert (files / "submitted").read_text() == render(
        load_cluster("cluster.yaml"), Job.TRAIN, "run.yaml", "runs/x"
    )
    fake.command("sbatch", "exit 3")
    assert call("run.yaml", "--submit") == 1


def test_what_is_set_for_this_machine_does_not_reach_the_nodes(files: Path) -> None:
    """DeepSpeed, imported to check the run, chooses the CPU where there is no GPU."""
    fake = FakeCluster(files)
    fake.command("sbatch", f"env >{files}/environment")
    environment = {
        **os.environ,
        "PATH": f"{fake.bin}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("DS_ACCELERATOR", None)
    words = ["cluster.yaml", "run.yaml", "--vocabulary", "2000", "--submit"]
    subprocess.run(
        [sys.executable, "-m", "launchers.slurm", *words], cwd=files, env=environment, check=True
    )
    assert "DS_ACCELERATOR" not in (files / "environment").read_text()


def test_without_sbatch_one_line_says_so(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(files))
    assert call("run.yaml", "--submit") == 2
    assert capsys.readouterr().err == (
        "megapt: error: --submit: no sbatch here; write the script with --output\n"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodse": 2}, "nodse: unknown key; did you mean 'nodes'?"),
        ({"nodes": 0}, "nodes: should be greater than 0, not 0"),
        ({"gpus_per_node": "8"}, "gpus_per_node: should be a valid integer, not '8'"),
        ({"cpus_per_node": None}, "cpus_per_node: this key is required and missing"),
        ({"time": 43200}, "time: should be in quotes; YAML reads HH:MM:SS as a number"),
        ({"time": "2 hours"}, "time: should have the form HH:MM:SS or D-HH:MM:SS, not '2 hours'"),
        ({"time": "00:05:00"}, "requeue_seconds: leaves a job of 00:05:00 no time to train"),
        ({"account": "a b"}, "account: String should match"),
        ({"partition": "gpu\n#SBATCH --x"}, "partition: String should match"),
        ({"sbatch": ["-N 3"]}, "sbatch.0: String should match"),
        ({"venv": "~/env"}, "venv: String should match"),
        ({"environment": {"A B": "c"}}, "environment.A B"),
        ({"environment": {"A": 1}}, "environment.A: should be a valid string, not 1"),
        ({"setup": "module load cuda"}, "setup: should be a valid tuple"),
    ],
)
def test_a_wrong_cluster_file_is_told_in_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, object], message: str
) -> None:
    write_cluster(files, **changes)
    assert call("run.yaml") == 2
    error = capsys.readouterr().err
    assert error.startswith("megapt: error: cluster.yaml")
    assert message.replace("String ", "") in error.replace("String ", "")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        (b"\xff", "not UTF-8 (byte 0)"),
        (b"nodes: [", "not valid YAML"),
        (b"- nodes", "should hold 'key: value' lines"),
        (b"", "should hold 'key: value' lines"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line(
    files: Path, text: bytes | None, message: str
) -> None:
    (files / "cluster.yaml").unlink()
    if text is not None:
        (files / "cluster.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as error:
        load_cluster("cluster.yaml")
    assert str(error.value).startswith("cluster.yaml: ")
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.yaml"], "none.yaml: no such config file"),
        (["run.yaml", "parallel.zero_stag=1"], "did you mean 'zero_stage'?"),
        (
            ["run.yaml", "training.global_batch_size=8"],
            "8 windows are not divisible by micro_batch_size 1 x 6",
        ),
        (["run.yaml", "--job", "compare"], "run.yaml: members: this key is required and missing"),
    ],
)
def test_a_wrong_run_is_refused_before_it_waits_in_a_queue(
    files: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert call(*words, "--output", "job.sbatch") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (files / "job.sbatch").exists()


def test_the_module_runs_without_torch(files: Path) -> None:
    code = "import sys, launchers.slurm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_key_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    for key in ClusterConfig.model_fields:
        assert f"| `{key}` |" in text
    blocks = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    assert blocks
    assert all(set(yaml.safe_load(block)) <= set(ClusterConfig.model_fields) for block in blocks)
    assert set(CLUSTER) <= set(ClusterConfig.model_fields)
