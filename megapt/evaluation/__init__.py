"""Evaluation of a run: validation scores, generated text, filled masks, classes and measures."""

from megapt.evaluation.classify import classify
from megapt.evaluation.evaluate import validation_scores
from megapt.evaluation.features import mean_states
from megapt.evaluation.fill_mask import Filling, fill_mask
from megapt.evaluation.generation import generate, repetition
from megapt.evaluation.loading import LoadedRun, load_run
from megapt.evaluation.samples import Sample, sample_texts, write_samples
from megapt.evaluation.text import readable
from megapt.evaluation.unmasking import unmask

__all__ = [
    "Filling",
    "LoadedRun",
    "Sample",
    "classify",
    "fill_mask",
    "generate",
    "load_run",
    "mean_states",
    "readable",
    "repetition",
    "sample_texts",
    "unmask",
    "validation_scores",
    "write_samples",
]
