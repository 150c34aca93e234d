"""The comparison as a job: one rank's part, and what is printed at its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from megapt.comparison.compare import REPORT, RESULTS, Comparison
from megapt.config import CompareConfig
from megapt.training.launch import begin


def compare(config_file: str, overrides: Sequence[str]) -> None:
    """Run the comparison that the file describes, on this process's rank."""
    config, origins, ranks = begin(CompareConfig, config_file, overrides)
    comparison = Comparison(config, ranks, origins)
    results = comparison.run()
    if ranks.main:
        # Where there is no terminal, Rich takes 80 columns and would cut the numbers.
        console = Console() if sys.stdout.isatty() else Console(width=120)
        from megapt.comparison.report import table

        console.print(table(results))
        print(f"report: {comparison.folder / REPORT}")
        print(f"results: {comparison.folder / RESULTS}")
