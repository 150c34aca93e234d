"""A dry run on the ranks of a job: `deepspeed … --module megapt.planning CONFIG [key=value …]`."""

import sys

from megapt.exits import leave, run_and_report
from megapt.planning.command import rehearse_run
from megapt.training.launch import arguments

if __name__ == "__main__":
    leave(run_and_report(lambda: rehearse_run(*arguments(sys.argv[1:]))))
