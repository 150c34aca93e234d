"""Multi-head attention within each example of a batch, with one backend per file."""

from megapt.model.attention.backend import Backend, Use
from megapt.model.attention.backends import BACKENDS, check_dropout, find_backend
from megapt.model.attention.grouped import GroupedAttention
from megapt.model.attention.layer import (
    Attention,
    AttentionPlan,
    Prepared,
    plan_attention,
    prepare_attention,
)

__all__ = [
    "BACKENDS",
    "Attention",
    "AttentionPlan",
    "Backend",
    "GroupedAttention",
    "Prepared",
    "Use",
    "check_dropout",
    "find_backend",
    "plan_attention",
    "prepare_attention",
]
