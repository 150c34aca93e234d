"""What a run will take before it takes it: `megapt plan`, and `megapt train --dry-run`."""

from megapt.planning.plan import Plan
from megapt.planning.planner import Planner
from megapt.planning.text import Text, corpus_text, made_up_text

__all__ = ["Plan", "Planner", "Text", "corpus_text", "made_up_text"]
