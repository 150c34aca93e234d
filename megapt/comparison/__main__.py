"""`deepspeed --module megapt.comparison CONFIG [key=value …]`: one rank of a comparison."""

import sys

from megapt.resilience.stopping import record_early_requests


def main() -> None:
    """Run this rank of a comparison."""
    record_early_requests()
    # These imports take seconds; a signal in this time must not kill the rank.
    from megapt.comparison.launch import compare
    from megapt.exits import leave, run_and_report
    from megapt.training.launch import arguments

    leave(run_and_report(lambda: compare(*arguments(sys.argv[1:]))))


if __name__ == "__main__":
    main()
