"""Whether a job would start on a cluster, before it waits in a queue."""

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
    """Refuse a run or a comparison whose parts do not fit each other or the job's ranks.

    Args:
        cluster: that the job is for.
        config: of the run or comparison.
        origins: of the configuration, for errors.
        text: what is known of the corpus; None opens it.

    Raises:
        MegaptError: see `find_parts`; what the text itself, the output folder and the nodes have to
            say shows when the job starts.
    """
    ranks = first_rank(cluster)
    if isinstance(config, RunConfig):
        find_parts(config, ranks, origins, text or open_corpora(config.data))
        return
    check_comparison(config, origins)
    text = text or open_corpora(config.data)
    for name in config.members:
        find_parts(config.member(name), ranks, origins, text, f"members.{name}")
