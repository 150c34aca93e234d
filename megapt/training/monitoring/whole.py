"""The weights of a model one by one, whole, wherever they are sharded."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from megapt.training.engine import Engine


def whole_weights(engine: Engine) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, weights) of every parameter. All ranks iterate together.

    Under ZeRO 3 one parameter at a time is gathered.
    """
    import deepspeed

    for name, parameter in engine.deepspeed.module.named_parameters():
        if hasattr(parameter, "ds_id"):
            with deepspeed.zero.GatheredParameters([parameter]):
                yield name, parameter.detach()
        else:
            yield name, parameter.detach()
