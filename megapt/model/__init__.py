"""The Transformer trunk and the heads, in plain PyTorch, independent of any objective."""

from megapt.model.build import build_model
from megapt.model.flops import training_flops
from megapt.model.pretraining import ModelOutput, PartSums, PretrainingModel
from megapt.model.trunk import Transformer

__all__ = [
    "ModelOutput",
    "PartSums",
    "PretrainingModel",
    "Transformer",
    "build_model",
    "training_flops",
]
