"""The commands `megapt plan` and `megapt train --dry-run`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from megapt.config import RunConfig, load_cluster, load_config
from megapt.data import open_corpora
from megapt.errors import ConfigError
from megapt.planning.planner import Planner
from megapt.planning.rehearsal import dry_run
from megapt.planning.report import lines, plan_as_json
from megapt.planning.text import made_up_text
from megapt.training.launch import begin


def plan_run(
    config_file: str,
    overrides: Sequence[str],
    cluster_file: str,
    *,
    vocabulary: int | None = None,
    labels: int = 0,
    speed: float | None = None,
    as_json: bool = False,
) -> None:
    """Print the memory, time and cost that a run will take.

    Args:
        config_file: configuration of the run.
        overrides: words ``key=value``.
        cluster_file: configuration of the cluster, with a section `device`.
        vocabulary: number of token ids; with None, the corpus is opened.
        labels: number of document classes if the corpus is not opened.
        speed: measured raw tokens per second of one device.
        as_json: whether to print JSON.

    Raises:
        ConfigError: for wrong input, and if no micro-batch fits.
        MegaptError: if a corpus cannot be opened; see `open_corpora`.
    """
    config, origins = load_config(RunConfig, config_file, overrides)
    cluster = load_cluster(cluster_file)
    if cluster.device is None:
        raise ConfigError(
            f"{cluster_file}: device: this section is missing; a plan needs it, see "
            f"configs/cluster/h100-8x8.yaml"
        )
    text = open_corpora(config.data) if vocabulary is None else made_up_text(vocabulary, labels)
    plan = Planner(config, origins, cluster, text).plan(speed)
    if as_json:
        print(json.dumps(plan_as_json(plan)))
        return
    if vocabulary is not None:
        print(f"Text        made up: {vocabulary:,} token ids, documents as long as a window")
    print("\n".join(lines(plan, config.training.micro_batch_size)))


def rehearse_run(config_file: str, overrides: Sequence[str], *, as_json: bool = False) -> None:
    """Check a run, do a few updates on made-up text, and print their memory and time.

    Every rank of a job calls it; the first rank prints.

    Args:
        config_file: configuration of the run.
        overrides: words ``key=value``.
        as_json: whether to print JSON.

    Raises:
        MegaptError: if training would refuse the run.
    """
    config, origins, ranks = begin(RunConfig, config_file, overrides)
    found = dry_run(config, ranks, origins)
    if ranks.main:
        output = json.dumps(found.as_dict()) if as_json else "\n".join(found.lines())
        print(output, flush=True)
