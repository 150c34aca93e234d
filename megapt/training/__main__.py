"""`deepspeed --module megapt.training CONFIG [key=value …]`: one rank of a training job."""

import sys

from megapt.resilience.stopping import record_early_requests


def main() -> None:
    """Train on this rank."""
    record_early_requests()
    # These imports take seconds; a signal in this time must not kill the rank.
    from megapt.exits import leave, run_and_report
    from megapt.training.launch import arguments, train

    leave(run_and_report(lambda: train(*arguments(sys.argv[1:]))))


if __name__ == "__main__":
    main()
