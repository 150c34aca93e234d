"""A cluster file to start from, and commands that play SLURM and DeepSpeed for a job script."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import yaml

CLUSTER = {"nodes": 3, "gpus_per_node": 2, "cpus_per_node": 8, "time": "02:00:00"}
RUN = """\
output: runs/x
data: {corpus: c}
model: vanilla-tiny
objective: arlm
training: {budget: {amount: 1}, global_batch_size: 48, micro_batch_size: 1}
"""

# `srun` starts its command once a node, at the same time, and fails as one of them does.
_SRUN = """\
printf '%s\\0' "$@" >"$RECORDS/srun"
while [[ $1 == --* ]]; do shift; done
steps=()
for ((node = 0; node < SLURM_NNODES; node++)); do
    SLURM_NODEID=$node "$@" & steps+=($!)
done
for step in "${steps[@]}"; do wait "$step" || code=$?; done
exit "${code:-0}"
"""
_SCONTROL = """\
case "$1 $2" in
"show hostnames") for ((i = 1; i <= SLURM_NNODES; i++)); do echo "gpu-$i"; done ;;
"show node") echo "NodeName=$3 CPUTot=8"; echo "   NodeAddr=10.0.0.${3#gpu-} NodeHostName=$3" ;;
*) echo "$*" >>"$RECORDS/scontrol" ;;
esac
"""
_DEEPSPEED = """\
printf '%s\\0' "$@" >"$RECORDS/deepspeed-$SLURM_NODEID"
env >"$RECORDS/environment-$SLURM_NODEID"
cp "$MEGAPT_HOSTFILE" "$RECORDS/hostfile-$SLURM_NODEID"
"""


class FakeCluster:
    """Runs job scripts with stand-ins for the cluster's commands, which record their words."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records"
        self.records.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.command("srun", _SRUN)
        self.command("scontrol", _SCONTROL)
        self.command("scancel", 'echo "$*" >>"$RECORDS/scancel"')
        self.command("deepspeed", _DEEPSPEED)

    def command(self, name: str, text: str) -> None:
        """Put a command first on the jobs' PATH."""
        file = self.bin / name
        file.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        file.chmod(0o755)

    def environment(self, nodes: int = 3) -> dict[str, str]:
        """Return what SLURM would set for the job."""
        return {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "RECORDS": str(self.records),
            "SLURM_JOB_ID": "1234567",
            "SLURM_JOB_NODELIST": f"gpu-[1-{nodes}]",
            "SLURM_NNODES": str(nodes),
        }

    def start(self, script: str, nodes: int = 3) -> subprocess.Popen[str]:
        """Start a job script as SLURM would."""
        file = self.folder / "job.sh"
        file.write_text(script, encoding="utf-8")
        return subprocess.Popen(
            ["bash", str(file)],
            cwd=self.folder,
            env=self.environment(nodes),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def words(self, record: str) -> list[str]:
        """Return the words that a command was given."""
        return (self.records / record).read_bytes().decode().split("\0")[:-1]


def write_cluster(folder: Path, **changes: object) -> Path:
    """Write a cluster file with `changes`; None leaves a key out."""
    values = {key: value for key, value in {**CLUSTER, **changes}.items() if value is not None}
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    return file
