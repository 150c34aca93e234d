"""Planning of a run before it starts: `megapt plan` and `megapt train --dry-run`."""

from megapt.planning.job import check_job
from megapt.planning.plan import Plan
from megapt.planning.planner import Planner
from megapt.planning.text import made_up_text

__all__ = ["Plan", "Planner", "check_job", "made_up_text"]
