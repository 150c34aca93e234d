"""The commands of megapt, in a process that has imported everything already."""

from __future__ import annotations

import io
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from megapt.distributed.ranks import Ranks


def run_command(ranks: Ranks, folder: Path, command: Sequence[str]) -> str:
    """Run one command in `folder`, and return what it printed.

    Raises:
        AssertionError: it did not end with 0.
    """
    from data_prep.cli import main as prep
    from megapt import exits
    from megapt.cli import main as megapt

    exits.leave = sys.exit  # This process has still to answer.
    os.chdir(folder)
    sys.argv = list(command)
    code: object = 0
    printed = io.StringIO()
    with redirect_stdout(printed):
        try:
            {"megapt": megapt, "megapt-prep": prep}[command[0]]()
        except SystemExit as end:
            code = end.code
    assert not code, f"{shlex.join(command)}: exit code {code}"
    return printed.getvalue()
