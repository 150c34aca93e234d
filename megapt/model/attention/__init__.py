"""Multi-head attention inside each example of a batch, never across."""

from megapt.model.attention.backend import Backend
from megapt.model.attention.layer import Attention, AttentionPlan, check_backend, plan_attention

__all__ = [
    "Attention",
    "AttentionPlan",
    "Backend",
    "check_backend",
    "plan_attention",
]
