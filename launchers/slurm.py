"""SLURM jobs: `python -m launchers.slurm CLUSTER.yaml --job train|compare CONFIG [key=value …]`.

The job script is the plain template `templates/slurm.sbatch` with the values of the cluster file
filled in. The configuration of the run is checked here, before the job waits in a queue.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from megapt.cli.command import Labels, Vocabulary, add_command
from megapt.config import ClusterConfig, CompareConfig, RunConfig, load_cluster, load_config
from megapt.errors import ConfigError

TEMPLATE = Path(__file__).with_name("templates") / "slurm.sbatch"


class Job(StrEnum):
    """Command that the job runs on the nodes."""

    TRAIN = "train"
    COMPARE = "compare"


_MODULES = {Job.TRAIN: "megapt.training", Job.COMPARE: "megapt.comparison"}


def _directives(cluster: ClusterConfig) -> list[str]:
    options = [
        f"--time={cluster.time}",
        f"--output={cluster.log}",
        *(
            f"--{name}={value}"
            for name in ("partition", "account", "qos")
            if (value := getattr(cluster, name)) is not None
        ),
    ]
    if cluster.gpus_per_node:
        options.append(f"--gpus-per-node={cluster.gpus_per_node}")
    if cluster.exclusive:
        options.append("--exclusive")
    if cluster.requeue_seconds:
        options.append(f"--signal=B:USR1@{cluster.requeue_seconds}")
    return [f"#SBATCH {option}" for option in [*options, *cluster.sbatch]]


def _setup(cluster: ClusterConfig) -> list[str]:
    lines = list(cluster.setup)
    if cluster.venv is not None:
        lines.append(f"export PATH={shlex.quote(cluster.venv)}/bin:$PATH")
    variables = {"OMP_NUM_THREADS": str(max(1, cluster.cpus_per_node // cluster.ranks_per_node))}
    if not cluster.gpus_per_node:
        variables["DS_ACCELERATOR"] = "cpu"
    if cluster.interface is not None:
        variables["NCCL_SOCKET_IFNAME"] = variables["GLOO_SOCKET_IFNAME"] = cluster.interface
    variables |= cluster.environment
    return lines + [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def render(
    cluster: ClusterConfig, job: Job, config: str, output: str, overrides: Sequence[str] = ()
) -> str:
    """Return the job script.

    Args:
        cluster: resources that the job requests.
        job: command that runs on the nodes.
        config: config file of the run or comparison, relative to the folder of submission.
        output: folder of the run or comparison; the script looks for new checkpoints in it.
        overrides: words ``key=value``; the ranks receive every character unchanged.
    """
    values = {
        "name": re.sub(r"\W+", "-", f"{job.value}-{Path(config).stem}"),
        "nodes": str(cluster.nodes),
        "cpus": str(cluster.cpus_per_node),
        "slots": str(cluster.ranks_per_node),
        "directives": "\n".join(_directives(cluster)),
        "setup": "\n".join(_setup(cluster)),
        "output": shlex.quote(output),
        "words": shlex.join([_MODULES[job], config, *overrides]),
    }
    template = TEMPLATE.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@add_command(app, "slurm")
def slurm(
    cluster: Annotated[str, typer.Argument(help="YAML file; see configs/cluster/.")],
    config: Annotated[str, typer.Argument(help="Config file of the run or comparison.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change.", metavar="[key=value …]")
    ] = None,
    job: Annotated[Job, typer.Option(help="Command to run.")] = Job.TRAIN,
    output: Annotated[Path | None, typer.Option(help="Write the script to this file.")] = None,
    submit: Annotated[
        bool, typer.Option("--submit", help="Submit the script with sbatch.")
    ] = False,
    vocabulary: Vocabulary = None,
    labels: Labels = 0,
) -> None:
    """Print a SLURM job script, or write it to a file, or submit it."""
    # sbatch passes its environment to the job. DeepSpeed, imported below, changes this process's
    # environment if the machine has no GPU, so the job gets a copy from before.
    environment = dict(os.environ)
    from megapt.planning import check_job, made_up_text

    words, resources = overrides or [], load_cluster(cluster)
    settings: RunConfig | CompareConfig
    if job is Job.TRAIN:
        settings, origins = load_config(RunConfig, config, words)
    else:
        settings, origins = load_config(CompareConfig, config, words)
    text = None if vocabulary is None else made_up_text(vocabulary, labels)
    check_job(resources, settings, origins, text)
    script = render(resources, job, config, settings.output, words)
    if output is not None:
        output.write_text(script, encoding="utf-8")
    if submit:
        try:
            done = subprocess.run(
                ["sbatch"], input=script, text=True, encoding="utf-8", env=environment
            )
        except FileNotFoundError:
            raise ConfigError("--submit: no sbatch here; write the script with --output") from None
        if done.returncode:
            raise typer.Exit(1)  # sbatch has said why.
    elif output is None:
        print(script, end="")


if __name__ == "__main__":
    app()
