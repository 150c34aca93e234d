"""The measures, one file each. A new file that defines a `Measure` is registered automatically."""

from megapt.evaluation.measures.base import Measure, MeasureContext, MeasureError
from megapt.evaluation.measures.catalogue import MEASURES, build_measure, find_measure
from megapt.evaluation.scores import Score, share_score

__all__ = [
    "MEASURES",
    "Measure",
    "MeasureContext",
    "MeasureError",
    "Score",
    "build_measure",
    "find_measure",
    "share_score",
]
