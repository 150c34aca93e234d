"""The soak test: disturb a training job at random moments, start it again, compare every number.

    python -m benchmarks.soak --corpus runs/demo/corpus --work bench/soak

Two ranks under the `deepspeed` launcher train one run undisturbed, and the same run again with
`--faults` faults, restarted after each: SIGKILL of a rank, SIGKILL of the launcher, SIGTERM to the
ranks, a full disk under the checkpoints (a small tmpfs, which only root can mount; otherwise this
fault is skipped), and a corrupt newest checkpoint. At the end, the records, the weights and the
digest of all windows that were read must equal those of the undisturbed run, bit by bit. The exit
code is 1 if anything differs, hangs, or ends with an exit code that does not match the fault.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import header, print_header, table
from benchmarks.kill import descendants
from megapt.checkpoint import steps_saved
from megapt.checkpoint.run_folder import RunFolder
from megapt.checkpoint.state import checkpoint_path
from megapt.errors import Exit
from megapt.monitoring.metrics import read_metrics, without_clock

PATIENCE = 180.0
"""Seconds without a step after which a job counts as hung."""
DISK = 64 << 20
"""Bytes of the small disk; a few checkpoints fit."""

_RUN: dict[str, Any] = {
    "seed": 5,
    # Everything with state: loader processes, random draws, dropout, accumulation, a schedule.
    "data": {"window": 128, "num_workers": 1},
    "objective": {"name": "bert"},
    "model": {
        "num_layers": 2,
        "hidden_size": 64,
        "num_heads": 4,
        "intermediate_size": 128,
        "dropout": 0.1,
    },
    "schedule": {"name": "cosine", "batch_size_rampup": [{"until": 0.1, "global_batch_size": 4}]},
    "training": {
        "global_batch_size": 8,
        "micro_batch_size": 2,
        "validation_windows": 8,
        "log_every": 1,
    },
    "checkpoint": {"keep_last": 3, "async_save": True},
    "parallel": {"zero_stage": 2},
}


def configuration(corpus: Path, output: Path, steps: int) -> dict[str, Any]:
    """Return a run of about `steps` steps."""
    values: dict[str, Any] = json.loads(json.dumps(_RUN))
    values["output"] = str(output)
    values["data"]["corpus"] = str(corpus.resolve())
    budget = steps * values["training"]["global_batch_size"] * values["data"]["window"]
    values["training"]["budget"] = {"axis": "raw_tokens", "amount": float(budget)}
    values["training"]["validate_every"] = min(50, steps // 4)
    values["checkpoint"]["every"] = min(20, steps // 10)
    return values


class Job:
    """One start of the job, in a new session.

    Args:
        config: JSON file, which is YAML too.
        log: file to which the job's output is appended.
    """

    def __init__(self, config: Path, log: Path) -> None:
        launcher = Path(sys.executable).with_name("deepspeed")
        command = [sys.executable, str(launcher), "--num_gpus", "2", "--master_port"]
        command += [str(random.SystemRandom().randrange(20000, 30000))]
        environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
        with log.open("ab") as output:
            self.launcher = subprocess.Popen(
                [*command, "--module", "megapt.training", str(config)],
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )

    def ranks(self) -> list[int]:
        """Return the processes of the ranks that have started."""
        found = {}
        for process in descendants(self.launcher.pid):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                local = [word for word in words if word.startswith(b"--local_rank=")]
                if local and b"megapt.training" in words:
                    found.setdefault(local[0], process)  # The rank comes before its children.
        return list(found.values())

    def end(self) -> int:
        """Wait for the end and return the exit code.

        Raises:
            TimeoutError: if the job hangs.
        """
        try:
            return self.launcher.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise TimeoutError("the job does not end") from None

    def sweep(self) -> None:
        """Kill all remaining processes of the session, as a batch system does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.launcher.pid, signal.SIGKILL)
        for process in sessions(self.launcher.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.launcher.wait()


def sessions(session: int) -> list[int]:
    """Return all processes of a session."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    found.append(int(entry.name))
    return found


def last_step(folder: RunFolder) -> int:
    """Return the step of the last record."""
    with contextlib.suppress(OSError, ValueError):
        return max((record["step"] for record in read_metrics(folder.metrics_file)), default=0)
    return 0


def wait_for(job: Job, condition: Callable[[], bool]) -> bool:
    """Wait until the condition holds; return whether it did before the job ended.

    Raises:
        TimeoutError: if nothing happens for too long.
    """
    until = time.monotonic() + PATIENCE
    while not condition():
        if job.launcher.poll() is not None:
            return False
        if time.monotonic() > until:
            raise TimeoutError("the job makes no progress")
        time.sleep(0.02)
    return True


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a small tmpfs on `folder`; yield whether that was possible."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


class Soak:
    """A run under faults.

    Args:
        config: configuration file of the run.
        folder: folder of the run.
        seed: seed of the faults.
        kinds: kinds of faults, each equally frequent.
        most: largest number of steps from a start to its fault.
    """

    def __init__(
        self, config: Path, folder: RunFolder, seed: int, kinds: list[str], most: int
    ) -> None:
        self.config, self.folder, self.kinds, self.most = config, folder, kinds, most
        self.draw = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def disturb(self, number: int) -> bool:
        """Start the job and disturb it once; return whether the run is still unfinished."""
        kind = self.kinds[number % len(self.kinds)]
        job = Job(self.config, self.config.with_name("soak.log"))
        try:
            begun = last_step(self.folder)
            # Sometimes before the first step, while the checkpoint is read.
            if self.draw.random() < 0.2 and kind != "full disk":
                if not wait_for(job, lambda: len(job.ranks()) == 2):
                    return False
                time.sleep(self.draw.uniform(0.0, 8.0))
            else:
                goal = begun + self.draw.randint(2, self.most)
                if not wait_for(job, lambda: last_step(self.folder) >= goal):
                    return False
                time.sleep(self.draw.uniform(0.0, 0.3))
            ranks = job.ranks()
            if len(ranks) < 2:
                return not self.folder.finished
            getattr(self, "_" + kind.replace(" ", "_"))(job, ranks)
            self.done[kind] += 1
        except TimeoutError as error:
            self.wrong.append(f"fault {number}, {kind}: {error}")
        finally:
            job.sweep()
        return not self.folder.finished

    def _expect(self, job: Job, codes: set[int]) -> None:
        code = job.end()
        if code not in codes and not (code == 0 and self.folder.finished):
            self.wrong.append(f"exit code {code}, not one of {sorted(codes)}")

    def _killed_rank(self, job: Job, ranks: list[int]) -> None:
        os.kill(self.draw.choice(ranks), signal.SIGKILL)
        # The launcher returns the code of the first rank that ends, which may be the killed one.
        self._expect(job, {Exit.LOST_PROCESS, Exit.FAILED, 128 + 9, 256 - 9})

    def _killed_launcher(self, job: Job, _: list[int]) -> None:
        job.launcher.kill()

    def _terminated(self, job: Job, ranks: list[int]) -> None:
        number = self.draw.choice([signal.SIGTERM, signal.SIGUSR1])
        for rank in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, number)
        self._expect(job, {Exit.RESTART})

    def _full_disk(self, job: Job, _: list[int]) -> None:
        ballast = self.folder.folder / "ballast"
        before = len(unsaved(self.folder))
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        try:
            wait_for(job, lambda: len(unsaved(self.folder)) > before)
        finally:
            ballast.unlink()
        job.launcher.kill()

    def _damaged(self, job: Job, ranks: list[int]) -> None:
        self._killed_launcher(job, ranks)
        job.sweep()
        *_, newest = [0, *steps_saved(self.folder.checkpoints)]
        if newest and len(steps_saved(self.folder.checkpoints)) > 1:
            path = checkpoint_path(self.folder.checkpoints, newest)
            file = self.draw.choice(sorted(file for file in path.rglob("*") if file.is_file()))
            content = bytearray(file.read_bytes())
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
            file.write_bytes(content)


def unsaved(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the events of checkpoints that could not be written."""
    return [r for r in read_metrics(folder.metrics_file) if r.get("kind") == "unsaved"]


def differences(found: RunFolder, expected: RunFolder) -> list[str]:
    """Return the differences between two finished runs."""
    import torch
    from safetensors.torch import load_file

    wrong = []
    for folder in (found, expected):
        if not folder.finished:
            return [f"{folder.folder} did not finish"]
    pairs = [without_clock(read_metrics(folder.metrics_file)) for folder in (found, expected)]
    if pairs[0] != pairs[1]:
        unlike = [a["step"] for a, b in zip(*pairs, strict=False) if a != b]
        first = unlike[0] if unlike else "none"
        wrong.append(f"{len(pairs[0])} and {len(pairs[1])} records, first difference: step {first}")
    summaries = [folder.summary() for folder in (found, expected)]
    for key in ("steps", "data", "validation", "skipped_updates"):
        if summaries[0][key] != summaries[1][key]:
            wrong.append(f"{key}: {summaries[0][key]} and {summaries[1][key]}")
    weights = []
    for folder in (found, expected):
        path = checkpoint_path(folder.checkpoints, steps_saved(folder.checkpoints)[-1])
        weights.append(load_file(path / "model.safetensors"))
    wrong += [name for name in weights[1] if not torch.equal(weights[0][name], weights[1][name])]
    return wrong


def soak(
    corpus: Path, work: Path, faults: int, steps: int, seed: int
) -> tuple[Counter[str], list[str]]:
    """Train both runs.

    Returns:
        Faults by kind, and the problems found.
    """
    work.mkdir(parents=True, exist_ok=True)
    runs = {}
    for name in ("undisturbed", "disturbed"):
        values = configuration(corpus, work / name, steps)
        file = work / f"{name}.yaml"
        file.write_text(json.dumps(values), encoding="utf-8")
        runs[name] = file, RunFolder(work / name)
    file, whole = runs["undisturbed"]
    began = time.monotonic()
    code = Job(file, work / "undisturbed.log").launcher.wait(40 * PATIENCE)
    if code:
        return Counter(), [f"the undisturbed run ended with {code}"]
    print(f"undisturbed: {whole.summary()['steps']} steps, {time.monotonic() - began:.0f} s")
    file, folder = runs["disturbed"]
    with small_disk(folder.folder) as small:
        kinds = ["killed rank", "killed launcher", "terminated", "damaged"]
        if small:
            kinds.append("full disk")
        test = Soak(file, folder, seed, kinds, min(44, steps // 8))
        number = 0
        while sum(test.done.values()) < faults and test.disturb(number):
            number += 1
            print(f"fault {sum(test.done.values())}: step {last_step(folder)}", flush=True)
        if not folder.finished:
            code = Job(file, work / "soak.log").launcher.wait(40 * PATIENCE)
            if code:
                test.wrong.append(f"the last start ended with {code}")
        if sum(test.done.values()) < faults:
            test.wrong.append(f"finished after {sum(test.done.values())} faults")
        return test.done, test.wrong + differences(folder, whole)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print_header(header(("torch", "deepspeed")))
    began = time.monotonic()
    done, wrong = soak(options.corpus, options.work, options.faults, options.steps, options.seed)
    print(table(["fault", "times"], [[kind, str(count)] for kind, count in sorted(done.items())]))
    print(f"{sum(done.values())} faults in {time.monotonic() - began:.0f} s")
    for line in wrong:
        print(f"wrong: {line}")
    print("every record, weight and window as without faults" if not wrong else "FAILED")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
