"""The comparison as a job: the work of one rank, and the output at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from megapt.comparison.compare import REPORT, RESULTS, Comparison
from megapt.config import CompareConfig
from megapt.training.launch import begin


def compare(config_file: str, overrides: Sequence[str]) -> None:
    """Run the comparison of a configuration file on the rank of this process.

    Args:
        config_file: configuration of the comparison.
        overrides: words ``key=value``.

    Raises:
        MegaptError: as `Comparison`.
    """
    config, origins, ranks = begin(CompareConfig, config_file, overrides)
    comparison = Comparison(config, ranks, origins)
    results = comparison.run()
    if ranks.main:
        # Without a terminal, Rich assumes 80 columns and would cut the numbers.
        console = Console() if sys.stdout.isatty() else Console(width=120)
        from megapt.comparison.report import table

        console.print(table(results))
        print(f"report: {comparison.folder / REPORT}")
        print(f"results: {comparison.folder / RESULTS}")
