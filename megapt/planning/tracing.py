"""The memory of a forward and a backward pass, from a model whose tensors have no storage.

The real model runs on torch's `meta` device: every operation determines the shapes and types of its
results without computing them. The tensors that autograd keeps, the chunks of the loss and the
gradients in flight all exist, and their bytes are counted when they are created and freed.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from megapt.config import RunConfig
from megapt.data import Batch
from megapt.distributed.deepspeed_config import DTYPES
from megapt.distributed.footprint import Trace
from megapt.model import build_model
from megapt.planning.kernels import FusedAttention, kernels_of
from megapt.training.parts import RunParts


def _cast_bytes(func: Any, args: Sequence[Any]) -> int:
    """Return the bytes that a CPU takes to cast operands to one type; CUDA needs none."""
    if func is torch.ops.aten.copy_.default:
        return 0
    operands = [a for a in args if isinstance(a, Tensor) and a.ndim and a.is_floating_point()]
    widest = max((a.element_size() for a in operands), default=0)
    return sum(widest * a.numel() for a in operands if a.element_size() < widest)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all storages that are created inside, until they are freed."""

    def __init__(self, casts: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.most = 0
        self._casts = casts
        self._watched: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and watch the storages of its results."""
        cast = _cast_bytes(func, args) if self._casts else 0
        self.most = max(self.most, self.live + cast)
        out = func(*args, **(kwargs or {}))
        for value in tree_iter(out):
            if isinstance(value, Tensor):
                self._watch(value)
        # Autograd sums gradients in place if nothing else refers to the first of them, but not
        # under a dispatch mode. Here the replaced gradient is freed by the next operation.
        if func is not torch.ops.aten.add.Tensor:
            self.most = max(self.most, self.live)
        return out

    def ignore(self, tensors: Sequence[Tensor]) -> None:
        """Exclude tensors that existed before, and their views."""
        for tensor in tensors:
            self._watched[tensor.untyped_storage()._cdata] = None  # type: ignore[assignment]

    def forget(self, tensor: Tensor) -> None:
        """Stop counting a storage, which is counted elsewhere from now on."""
        watcher = self._watched.get(tensor.untyped_storage()._cdata)
        if watcher is not None and watcher.alive:
            watcher()

    def _watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._watched:
            return
        self.live += size
        self._watched[key] = weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self.live -= size
        del self._watched[key]


class Tracer:
    """A model without storage, which traces the memory of its passes.

    Args:
        config: configuration of the run.
        parts: parts of the run; its heads and attention backend are used.
        device: `cpu` or `cuda`; its kernels are assumed.
    """

    def __init__(self, config: RunConfig, parts: RunParts, device: str) -> None:
        self._device = device
        attention = FusedAttention if parts.backend.fused else parts.backend
        heads, size = parts.objective.heads, parts.objective.vocabulary.size
        with torch.device("meta"):
            self.model = build_model(config, heads, size, attention)
        self.model.to(DTYPES[config.training.precision]).train()

    def trace(self, batch: Batch) -> Trace:
        """Return the memory trace of a forward and a backward pass of a micro-batch."""
        live = _LiveBytes(casts=self._device == "cpu")
        peaks: list[float] = []
        finished = [0.0]
        trunk = [0.0]

        def gradient(parameter: Tensor) -> None:
            assert parameter.grad is not None
            peaks.append(max(live.most, live.live))
            finished.append(finished[-1] + parameter.numel())
            live.forget(parameter.grad)
            live.most = live.live

        def trunk_done(*_: Any) -> None:
            trunk[0] = live.live

        parameters = list(self.model.parameters())
        hooks: list[Any] = []
        for parameter in parameters:
            register: Any = parameter.register_post_accumulate_grad_hook
            hooks.append(register(gradient))
        hooks.append(self.model.trunk.register_forward_hook(trunk_done))
        try:
            with kernels_of(self._device), live:
                live.ignore(parameters)
                output = self.model(batch.to(torch.device("meta")))
                head = live.most - trunk[0]
                output.loss.backward()
            peaks.append(live.most)
        finally:
            for hook in hooks:
                hook.remove()
            self.model.zero_grad()
        return Trace(np.array(peaks), np.array(finished), trunk[0], head)


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """Return the parameters of embeddings, blocks, heads and the rest; shared ones count once."""
    parts = {"embeddings": 0, "blocks": 0, "norms": 0, "heads": 0}
    for name, parameter in model.named_parameters():
        first = ".".join(name.split(".")[:2])
        part = {"trunk.embeddings": "embeddings", "trunk.blocks": "blocks"}.get(first)
        if part is None:
            part = "norms" if first.startswith("trunk.") else "heads"
        parts[part] += parameter.numel()
    return parts
