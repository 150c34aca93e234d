"""Attention on examples of like length side by side. Works everywhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from megapt.data import Batch
from megapt.model.attention.backend import Backend


def group_mask(group: Tensor, visible: Tensor) -> Tensor:
    """Return which keys each query may see, bool [examples, 1, n, n].

    The places after the end of a shorter example come after all of its own, so no query of it
    sees them; nobody reads theirs.

    Args:
        group: places of the examples, int64 [examples, n].
        visible: with one entry more, for the place of nothing, bool [N + 1].
    """
    n = group.shape[1]
    before = torch.ones(n, n, dtype=torch.bool, device=group.device).tril()
    return (before | visible[group][:, None, :])[:, None]


class GroupedAttention(Backend):
    """Gathers the examples of like length, attends in each group, and puts the states back.

    Its cost grows with the squares of the examples' lengths alone, and no key of another example
    is ever computed.
    """

    name = "grouped"
    drops = True

    def __init__(self, batch: Batch) -> None:
        size = len(batch.tokens)
        visible = functional.pad(batch.visible, (0, 1))
        places = torch.cat([group.flatten() for group in batch.groups])
        back = torch.empty(size + 1, dtype=torch.int64, device=places.device)
        back[places] = torch.arange(len(places), device=places.device)
        self.shapes = [group.shape for group in batch.groups]
        self.masks = [group_mask(group, visible) for group in batch.groups]
        # Some state stands at the place of nothing: as a key nobody sees it, as a query nobody
        # reads it.
        self.places = places.clamp_(max=size - 1)
        """Place of each state of the groups laid end to end, int64 [M]."""
        self.back = back[:size]
        """Place of each state in the groups laid end to end, int64 [N]."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        """Return the mixed values; see `Backend`."""
        sizes = [shape.numel() for shape in self.shapes]
        # Not indexing: its gradient would be sorted and added up, as if places came twice.
        laid = [torch.split(s.index_select(0, self.places), sizes) for s in (q, k, v)]
        mixed = []
        for shape, mask, *parts in zip(self.shapes, self.masks, *laid, strict=True):
            q, k, v = (part.unflatten(0, shape).transpose(1, 2) for part in parts)
            out = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout
            )
            mixed.append(out.transpose(1, 2).flatten(0, 1))
        return torch.cat(mixed).index_select(0, self.back)
