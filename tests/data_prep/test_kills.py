"""The kill test in small; benchmarks/RESULTS.md has it in large."""

import shlex
import subprocess
import sys
from pathlib import Path

from prep_execution import mpirun_command, mpirun_environment
from prep_support import make_documents, write_jsonl

ROOT = Path(__file__).parents[2]


def test_killed_builds_are_finished_by_the_next(tokenizer_path: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", make_documents(3000))
    config = tmp_path / "clean.yaml"
    config.write_text(
        "cleaning: [unicode, control_characters, whitespace]\n"
        "deduplicate: {exact: true, near: {}}\n"
    )
    command = [sys.executable, "-m", "benchmarks.kill", "--input", source, "--work", tmp_path]
    command += ["--tokenizer", tokenizer_path, "--kills", "6"]
    command += ["--mpirun", shlex.join(mpirun_command(3)), "--build-options", f"--config {config}"]
    done = subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=mpirun_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every corpus is identical to the undisturbed one" in done.stdout
