"""Checks whether a job would start on a cluster, before it waits in a queue."""

from __future__ import annotations

from megapt.config import ClusterConfig, CompareConfig, Origins, RunConfig
from megapt.data import TextFacts, open_corpora
from megapt.training.parts import check_comparison, find_parts, first_rank


def check_job(
    cluster: ClusterConfig,
    config: RunConfig | CompareConfig,
    origins: Origins,
    text: TextFacts | None = None,
) -> None:
    """Check that the parts of a run or comparison fit each other and the ranks of the job.

    The text itself, the output folder and the nodes are checked when the job starts.

    Args:
        cluster: the cluster of the job.
        config: configuration of the run or comparison.
        origins: origins of the configuration, for errors.
        text: facts of the corpus; with None, the corpus is opened.

    Raises:
        MegaptError: see `find_parts`.
    """
    ranks = first_rank(cluster)
    if isinstance(config, RunConfig):
        find_parts(config, ranks, origins, text or open_corpora(config.data))
        return
    check_comparison(config, origins)
    text = text or open_corpora(config.data)
    for name in config.members:
        find_parts(config.member(name), ranks, origins, text, f"members.{name}")
