"""Job scripts are run by bash here, with stand-ins for the cluster's commands."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from launchers.slurm import ClusterConfig, Job, load_cluster, render
from tests.launchers.clusters import FakeCluster, write_cluster
from tests.patience import patience, wait_for

OUTPUT = "runs/中 'x'"

HARD_WORDS = [
    "output=runs/two words",
    "title='single' \"double\" `date` $(date)",
    "output=$HOME/${USER}/$1 \\n \\",
    "title=预训练目标 “比较” é\u3000!",
    "a=*?[x]{y}~ # no comment; & | < > ()",
    "title=two\nlines\tand a tab",
    "{{words}}",
    "=",
    "",
]


@pytest.fixture
def fake(tmp_path: Path) -> FakeCluster:
    return FakeCluster(tmp_path)


def cluster(folder: Path, **changes: object) -> ClusterConfig:
    return load_cluster(write_cluster(folder, **changes))


def run(fake: FakeCluster, script: str) -> tuple[int, str]:
    job = fake.start(script)
    text, _ = job.communicate(timeout=patience(30))
    return job.returncode, text


def test_every_node_starts_deepspeed_once_with_its_own_number(fake: FakeCluster) -> None:
    code, text = run(fake, render(cluster(fake.folder), Job.TRAIN, "run.yaml", OUTPUT, ["seed=1"]))
    assert code == 0, text
    for node in range(3):
        words = fake.words(f"deepspeed-{node}")
        hostfile = words[1]
        assert words == [
            *("--hostfile", hostfile, "--no_ssh", "--node_rank", str(node)),
            *("--master_addr", "10.0.0.1", "--master_port", "24567"),
            *("--module", "megapt.training", "run.yaml", "seed=1"),
        ]
    lines = (fake.records / "hostfile-2").read_text().splitlines()
    assert lines == ["gpu-1 slots=2", "gpu-2 slots=2", "gpu-3 slots=2"]
    assert not Path(hostfile).exists(), "the hostfile is left behind"
    assert "--kill-on-bad-exit=1" in fake.words("srun")
    assert not list(fake.folder.glob(".megapt-*")), "nothing is left behind"


def test_words_arrive_as_they_are(fake: FakeCluster) -> None:
    config = "配置 of 'mine' $x.yaml"
    code, text = run(fake, render(cluster(fake.folder), Job.COMPARE, config, OUTPUT, HARD_WORDS))
    assert code == 0, text
    for node in range(3):
        words = fake.words(f"deepspeed-{node}")
        assert words[words.index("--module") + 1 :] == ["megapt.comparison", config, *HARD_WORDS]


def test_the_environment_reaches_every_rank(fake: FakeCluster) -> None:
    venv = fake.folder / "my env"
    (venv / "bin").mkdir(parents=True)
    shutil.move(fake.bin / "deepspeed", venv / "bin")
    settings = cluster(
        fake.folder,
        gpus_per_node=0,
        cpu_ranks_per_node=4,
        venv=str(venv),
        interface="ib0",
        setup=["export FROM_SETUP='a b'", "unset_is_fine=$NOT_SET"],
        environment={"NOTE": "it's $5 中"},
    )
    code, text = run(fake, render(settings, Job.TRAIN, "run.yaml", OUTPUT))
    assert code == 0, text
    seen = (fake.records / "environment-2").read_text(encoding="utf-8").splitlines()
    for line in (
        "OMP_NUM_THREADS=2",
        "DS_ACCELERATOR=cpu",
        "NCCL_SOCKET_IFNAME=ib0",
        "GLOO_SOCKET_IFNAME=ib0",
        "FROM_SETUP=a b",
        "NOTE=it's $5 中",
    ):
        assert line in seen
    assert (fake.records / "hostfile-2").read_text().startswith("gpu-1 slots=4\n")


def test_the_exit_code_is_that_of_the_ranks(fake: FakeCluster) -> None:
    fake.command("deepspeed", 'exit "$((SLURM_NODEID == 1 ? 7 : 0))"')
    code, text = run(fake, render(cluster(fake.folder), Job.TRAIN, "run.yaml", OUTPUT))
    assert code == 7
    assert "ended with code 7" in text
    assert not (fake.records / "scontrol").exists(), "a run that failed is not queued again"


def test_a_setup_line_that_fails_ends_the_job(fake: FakeCluster) -> None:
    code, _ = run(
        fake, render(cluster(fake.folder, setup=["false"]), Job.TRAIN, "run.yaml", OUTPUT)
    )
    assert code == 1
    assert not (fake.records / "srun").exists()


# DeepSpeed's outer process, which has no handler for signals, and under it a rank that saves.
# They are Python: a shell cannot take back that a signal is ignored.
_SAVING = """\
import os, pathlib, signal, subprocess, sys, time
records, node = pathlib.Path(os.environ["RECORDS"]), os.environ["SLURM_NODEID"]
if sys.argv[1] == "outer":
    (records / f"outer-{node}").write_text(str(os.getpid()))
    sys.exit(subprocess.call([sys.executable, __file__, "rank"]))
def save(*_):
    time.sleep(0.2)
    (records / f"saved-{node}").touch()
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, save)
part = records / f"part-{node}"
part.write_text(str(os.getpid()))
part.rename(records / f"ready-{node}")
time.sleep(60)
"""


@pytest.fixture
def saving(fake: FakeCluster) -> Iterator[subprocess.Popen[str]]:
    """A job whose ranks save when they get SIGTERM."""
    program = fake.folder / "saving.py"
    program.write_text(_SAVING, encoding="utf-8")
    fake.command("deepspeed", shlex.join(["exec", sys.executable, str(program), "outer"]))
    job = fake.start(render(cluster(fake.folder), Job.TRAIN, "run.yaml", OUTPUT))
    for node in range(3):
        wait_for((fake.records / f"ready-{node}").exists)
    yield job
    for file in [*fake.records.glob("outer-*"), *fake.records.glob("ready-*")]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)
    job.communicate(timeout=patience(30))


def signal_all(fake: FakeCluster, number: int) -> None:
    """Signal every process of the job's step, as SLURM does."""
    for file in [*fake.records.glob("outer-*"), *fake.records.glob("ready-*")]:
        os.kill(int(file.read_text()), number)


def test_a_preempted_job_ends_after_its_ranks_have_saved(
    fake: FakeCluster, saving: subprocess.Popen[str]
) -> None:
    saving.send_signal(signal.SIGTERM)
    signal_all(fake, signal.SIGTERM)
    text, _ = saving.communicate(timeout=patience(30))
    assert saving.returncode == 75
    assert len(list(fake.records.glob("saved-*"))) == 3, "the outer process died first"
    assert "ended with code 75" in text
    assert not (fake.records / "scontrol").exists(), "SLURM itself queues it again"


def test_near_the_time_limit_the_ranks_save_and_the_job_is_queued_again(
    fake: FakeCluster, saving: subprocess.Popen[str]
) -> None:
    saving.send_signal(signal.SIGUSR1)
    wait_for((fake.records / "scancel").exists)
    assert (fake.records / "scancel").read_text() == "--signal=USR1 1234567\n"
    assert saving.poll() is None, "the job waits for its ranks"
    signal_all(fake, signal.SIGUSR1)
    text, _ = saving.communicate(timeout=patience(30))
    assert "asked to stop" in text
    assert len(list(fake.records.glob("saved-*"))) == 3, "the outer process died first"
    assert (fake.records / "scontrol").read_text() == "requeue 1234567\n"


def test_a_run_that_ends_near_the_time_limit_is_not_queued_again(fake: FakeCluster) -> None:
    fake.command("deepspeed", 'touch "$RECORDS/ready-$SLURM_NODEID"; sleep 0.5')
    job = fake.start(render(cluster(fake.folder), Job.TRAIN, "run.yaml", OUTPUT))
    wait_for((fake.records / "ready-0").exists)
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=patience(30))
    assert job.returncode == 0
    assert (fake.records / "scancel").exists()
    assert not (fake.records / "scontrol").exists()


def end_with(fake: FakeCluster, code: int, saved: str = "") -> str:
    """Run a job that ends with `code`, after it has saved something; return what it says."""
    made = f"mkdir -p {shlex.quote(OUTPUT)}/{saved}" if saved else ":"
    fake.command("deepspeed", f"[[ $SLURM_NODEID != 1 ]] || {{ {made}; exit {code}; }}")
    found, text = run(fake, render(cluster(fake.folder), Job.TRAIN, "run.yaml", OUTPUT))
    assert found == code
    return text


@pytest.mark.parametrize("code", [75, 76, 137, 247, 250])
def test_what_is_no_fault_of_the_run_queues_it_again(fake: FakeCluster, code: int) -> None:
    assert "queued again: " in end_with(fake, code)
    assert (fake.records / "scontrol").read_text() == "requeue 1234567\n"


@pytest.mark.parametrize("code", [0, 1, 2, 65, 130, 141])
def test_what_is_one_or_is_wanted_does_not(fake: FakeCluster, code: int) -> None:
    end_with(fake, code)
    assert not (fake.records / "scontrol").exists()


@pytest.mark.parametrize("code", [75, 76])
def test_a_job_that_saves_nothing_is_not_queued_for_ever(fake: FakeCluster, code: int) -> None:
    requeued = []
    for number in range(9):
        step = f"members/a/checkpoints/step-{number:08d}" if number in (0, 2, 3, 5) else ""
        (fake.records / "scontrol").unlink(missing_ok=True)
        text = end_with(fake, code, step)
        requeued.append((fake.records / "scontrol").exists())
        assert ("has saved anything" in text) is not requeued[-1]
        if not requeued[-1]:
            break
    assert requeued == [True] * 7 + [False]
    assert not list(fake.folder.glob(".megapt-*")), "nothing is left behind"
