"""The commands `megapt plan` and `megapt train --dry-run`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from megapt.config import RunConfig, load_cluster, load_config
from megapt.data import open_corpora
from megapt.errors import ConfigError
from megapt.planning.planner import Planner
from megapt.planning.rehearsal import dry_run
from megapt.planning.report import as_json as json_of
from megapt.planning.report import lines
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
    """Print what a run will take.

    Args:
        config_file: of the run.
        overrides: words ``key=value``.
        cluster_file: with a section `device`.
        vocabulary: token ids; None opens the corpus.
        labels: document classes of a corpus that is not read.
        speed: measured raw tokens a second of one device.
        as_json: for programs.

    Raises:
        ConfigError: for wrong input, and if no micro-batch fits.
        MegaptError: if a corpus cannot be opened; see `open_corpora`.
    """
    config, origins = load_config(RunConfig, config_file, overrides)
    cluster = load_cluster(cluster_file)
    if cluster.device is None:
        raise ConfigError(
            f"{cluster_file}: device: this section is missing; it says what a plan reckons with, "
            f"see configs/cluster/h100-8x8.yaml"
        )
    known = vocabulary is not None
    text = open_corpora(config.data) if vocabulary is None else made_up_text(vocabulary, labels)
    plan = Planner(config, origins, cluster, text).plan(speed)
    if as_json:
        print(json.dumps(json_of(plan)))
        return
    if known:
        print(f"Text        made up: {vocabulary:,} token ids, documents as long as a window")
    print("\n".join(lines(plan, config.training.micro_batch_size)))


def rehearse_run(config_file: str, overrides: Sequence[str], *, as_json: bool = False) -> None:
    """Check a run, do a few updates on made-up text, and print what they took.

    Every rank of a job calls it; the first prints.

    Args:
        config_file: of the run.
        overrides: words ``key=value``.
        as_json: for programs.

    Raises:
        MegaptError: for whatever training would refuse.
    """
    config, origins, ranks = begin(RunConfig, config_file, overrides)
    found = dry_run(config, ranks, origins)
    if ranks.main:
        told = json.dumps(found.as_dict()) if as_json else "\n".join(found.lines())
        print(told, flush=True)
