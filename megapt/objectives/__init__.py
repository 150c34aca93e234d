"""The objectives, one file each. A new file that defines an `Objective` registers itself."""

from megapt.objectives.base import Context, Cost, Objective, ObjectiveError
from megapt.objectives.catalogue import OBJECTIVES, build_objective

__all__ = ["OBJECTIVES", "Context", "Cost", "Objective", "ObjectiveError", "build_objective"]
