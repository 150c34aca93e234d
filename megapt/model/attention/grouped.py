"""Attention on groups of examples of similar length. Works on all devices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from megapt.data import Batch
from megapt.model.attention.backend import Backend


def group_mask(group: Tensor, visible: Tensor) -> Tensor:
    """Return which keys each query may see, bool [examples, 1, n, n].

    The padding of a shorter example follows its last place, so none of its queries sees the
    padding; the output of the padding is not read.

    Args:
        group: places of the examples, int64 [examples, n].
        visible: bool [N + 1], with an extra entry for the padding.
    """
    n = group.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=group.device).tril()
    return (causal | visible[group][:, None, :])[:, None]


class GroupedAttention(Backend):
    """Groups examples of similar length, computes attention in each group, and restores the order.

    The cost is quadratic only in the lengths of the examples; no pair of two examples is computed.
    """

    name = "grouped"
    drops = True

    def __init__(self, batch: Batch) -> None:
        size = len(batch.tokens)
        visible = functional.pad(batch.visible, (0, 1))
        places = torch.cat([group.flatten() for group in batch.groups])
        inverse = torch.empty(size + 1, dtype=torch.int64, device=places.device)
        inverse[places] = torch.arange(len(places), device=places.device)
        self.shapes = [group.shape for group in batch.groups]
        self.masks = [group_mask(group, visible) for group in batch.groups]
        # Padding reads the last state: no query sees it as a key, and nothing reads its output.
        self.places = places.clamp_(max=size - 1)
        """Place of each state of the concatenated groups, int64 [M]."""
        self.inverse = inverse[:size]
        """Index of each state in the concatenated groups, int64 [N]."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the attention output; see `Backend`."""
        sizes = [shape.numel() for shape in self.shapes]
        # `index_select`, because the gradient of indexing sorts the places to add up duplicates.
        gathered = [torch.split(s.index_select(0, self.places), sizes) for s in (q, k, v)]
        outputs = []
        for shape, mask, *parts in zip(self.shapes, self.masks, *gathered, strict=True):
            q, k, v = (part.unflatten(0, shape).transpose(1, 2) for part in parts)
            out = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout
            )
            outputs.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, self.inverse)
