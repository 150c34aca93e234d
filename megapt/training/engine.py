"""The DeepSpeed engine: what it is told, and the little that it is not trusted with."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from megapt.config import Origins, RunConfig
from megapt.training.averaging import WeightAverage
from megapt.training.distributed import Ranks, import_deepspeed
from megapt.training.optimizers import make_optimizer
from megapt.training.settings import DTYPES, check_nvme, deepspeed_config

_BUCKET = 500_000_000
"""Elements that DeepSpeed reduces at once by default."""


@dataclass(frozen=True)
class Update:
    """What has become of one update."""

    norm: float
    """Of the gradient over all ranks, before clipping; not finite if the gradient was not."""
    applied: bool
    """Whether weights and optimiser states have changed."""


def _admit(optimizer: type[torch.optim.Optimizer]) -> None:
    """Let ZeRO run an optimiser without a warning that DeepSpeed has not tested it."""
    from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS

    if optimizer not in ZERO_SUPPORTED_OPTIMIZERS:
        ZERO_SUPPORTED_OPTIMIZERS.append(optimizer)


def _set_determinism(wanted: bool) -> None:
    """Have torch choose kernels that give the same bits every time, or any.

    The workspace of cuBLAS is chosen with its first product, which comes later.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.deterministic = wanted
    if wanted:
        torch.backends.cudnn.benchmark = False


class Engine:
    """One model under DeepSpeed.

    Args:
        model: on the CPU, float32.
        config: of the run.
        ranks: of the job.
        origins: of the configuration, for errors.

    Raises:
        ConfigError: for settings that cannot run, or contradict each other.
    """

    def __init__(self, model: nn.Module, config: RunConfig, ranks: Ranks, origins: Origins) -> None:
        settings = deepspeed_config(config, ranks, origins)
        check_nvme(config, origins)
        deepspeed = import_deepspeed()
        _set_determinism(config.training.deterministic)
        zero = settings["zero_optimization"]
        # DeepSpeed allocates the whole bucket, 2 GB by default.
        size = sum(parameter.numel() for parameter in model.parameters())
        zero.setdefault("reduce_bucket_size", min(_BUCKET, size))
        sharded = zero["stage"] == 3
        if not sharded:
            model = model.to(ranks.device)
        optimizer = make_optimizer(model, config, ranks)
        _admit(type(optimizer))
        if sharded:
            # Parameter by parameter, so that no device ever holds the whole model.
            model = model.to(DTYPES[config.training.precision])
            deepspeed.zero.Init(module=model, config_dict_or_path=settings)
        self.deepspeed, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=settings,
            dist_init_required=False,
        )
        self._world, self._main = ranks.world, ranks.main
        self._clip = config.optimizer.clip
        self._zero = zero["stage"] > 0
        decay = config.optimizer.average
        self._average = WeightAverage(self.deepspeed, decay) if decay else None

    def backward(self, loss: Tensor, last: bool) -> None:
        """Back-propagate a micro-batch's part of the step's loss; gradients add up.

        DeepSpeed averages gradients over all ranks. The loss is normalised over the whole step
        already, so the average is undone here, and the division by the accumulation steps is
        switched off. Ranks that share positions are to DeepSpeed ranks like others: each has a part
        of the loss, and its gradient is a part of the sum. (Told of them, DeepSpeed divides by
        different numbers at different stages.)

        Args:
            loss: scalar; of the positions of this rank alone.
            last: whether the update follows. The number of micro-batches may differ from update to
                update, as long as all ranks agree.
        """
        self.deepspeed.set_gradient_accumulation_boundary(last)
        self.deepspeed.backward(loss * self._world, scale_wrt_gas=False)

    def step(self, learning_rate: float, skip: bool = False) -> Update:
        """Update the weights, unless the gradient is not finite.

        What is left out leaves no trace: weights, optimiser states and Adam's count of its updates
        stay as they are, on all ranks, and the gradients are forgotten. Under fp16 DeepSpeed then
        halves its loss scale, which is how it finds one.

        Args:
            learning_rate: times each group's own factor.
            skip: leave out this update in any case.
        """
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        update = self._zero_step(skip) if self._zero else self._plain_step(skip)
        if update.applied and self._average is not None:
            self._average.add()
        return update

    def _zero_step(self, skip: bool) -> Update:
        """Step through DeepSpeed's ZeRO optimiser, which itself refuses what is not finite."""
        if skip:
            with _refusing(self.deepspeed.optimizer) as norms:
                self.deepspeed.step()
            return Update(norms[-1], applied=False)
        self.deepspeed.step()
        norm = float(self.deepspeed.get_global_grad_norm())
        return Update(norm, applied=self.deepspeed.was_step_applied())

    def _plain_step(self, skip: bool) -> Update:
        """Step through torch's own optimiser; every rank holds the same gradients."""
        parameters = [p for p in self.deepspeed.module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        value = float(norm)
        applied = math.isfinite(value) and not skip
        if applied:
            if self._clip:
                torch.nn.utils.clip_grads_with_norm_(parameters, self._clip, norm)
            self.deepspeed.step()
        else:
            self.deepspeed.zero_grad()
        return Update(value, applied)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context inside which the module holds the moving average, if there is one.

        All ranks must enter it. No update may be done inside; afterwards the weights are what they
        were, bit for bit. After an error inside, a checkpoint is still right, but a module of
        shards, or in half precision, keeps the average.
        """
        return nullcontext() if self._average is None else self._average.in_place()

    def average_state(self) -> dict[str, Tensor] | None:
        """Return the whole moving average, or None. All ranks must call it.

        Returns:
            Name of a parameter -> float32 tensor on the CPU; nothing on ranks but the main one.
        """
        return None if self._average is None else self._average.state(self._main)

    def load_average(self, weights: Mapping[str, Tensor] | None) -> None:
        """Go on from a moving average; with None, begin one with the weights as they are now.

        Call it after the weights and DeepSpeed's counts of updates were loaded.

        Args:
            weights: what `average_state` has returned, on any ranks, at any ZeRO stage.
        """
        if self._average is None:
            return
        if weights is None:
            self._average.restart()
        else:
            self._average.load(weights)

    def close(self) -> None:
        """Free the engine's memory and hooks."""
        self.deepspeed.destroy()


@contextmanager
def _refusing(optimizer: Any) -> Iterator[list[float]]:
    """Inside, a ZeRO optimiser leaves out the update, as it does one that is not finite.

    It asks one method for the gradient norm, at every stage, with and without offloading, and goes
    no further if that is infinite. Its loss scale is not to blame and stays.

    Yields:
        A list whose last entry is the true norm.
    """
    from deepspeed.runtime.utils import combine_grad_norm_groups

    by_group = hasattr(optimizer, "_get_norm_groups")  # stage 3
    method = "_get_norm_groups" if by_group else "scaled_global_norm"
    true_norm = getattr(optimizer, method)
    norms = [math.inf]  # What is not asked for was found to be infinite before.

    def refused() -> Any:
        scaled = combine_grad_norm_groups(true_norm() if by_group else [true_norm()])
        norms.append(float(scaled) / optimizer.loss_scale)
        infinite = torch.full_like(scaled, math.inf)
        return [infinite] if by_group else infinite

    setattr(optimizer, method, refused)
    optimizer._update_scale = lambda has_overflow: None
    try:
        yield norms
    finally:
        delattr(optimizer, method)
        del optimizer._update_scale
