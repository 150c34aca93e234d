"""A dry run on the ranks of a job: `deepspeed … --module megapt.planning CONFIG [key=value …]`."""

import sys

from megapt.exits import guarded, leave
from megapt.planning.command import rehearse_run
from megapt.training.launch import arguments

if __name__ == "__main__":
    leave(guarded(lambda: rehearse_run(*arguments(sys.argv[1:]))))
