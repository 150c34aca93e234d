"""A model under DeepSpeed, with the interface that the rest of megapt uses."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from megapt.config import RunConfig
from megapt.distributed.averaging import WeightAverage
from megapt.distributed.checkpoint_capture import checkpoint_files
from megapt.distributed.deepspeed_config import DTYPES
from megapt.distributed.determinism import deterministic
from megapt.distributed.master_weights import gather
from megapt.distributed.parameter_shards import ParameterShard, parameter_shards
from megapt.distributed.ranks import Ranks
from megapt.distributed.resharding import load_engine
from megapt.distributed.start import import_deepspeed

_BUCKET = 500_000_000
"""DeepSpeed's default number of elements of a reduction bucket."""


@dataclass(frozen=True)
class Update:
    """The outcome of one update."""

    norm: float
    """Gradient norm over all ranks before clipping; not finite if the gradient is not."""
    applied: bool
    """Whether weights and optimizer states have changed."""


def _allow_optimizer(optimizer: type[torch.optim.Optimizer]) -> None:
    """Let ZeRO run an optimizer without a warning that DeepSpeed has not tested it."""
    from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS

    if optimizer not in ZERO_SUPPORTED_OPTIMIZERS:
        ZERO_SUPPORTED_OPTIMIZERS.append(optimizer)


def _destroy(engine: Any) -> None:
    """Free an engine, including the references in DeepSpeed's global state."""
    from deepspeed.runtime.zero import parameter_offload

    engine.destroy()
    parameter_offload.FWD_MODULE_STACK.clear()


class Engine:
    """A model under DeepSpeed. It is called like the module; all ranks must call it.

    Args:
        model: the model, float32, on the CPU.
        optimizer: optimizer of the model's parameters; each group has a learning rate `factor`.
        config: the run's configuration.
        settings: DeepSpeed's configuration of the run; see `deepspeed_config`.
        ranks: the job's ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: RunConfig,
        settings: Mapping[str, Any],
        ranks: Ranks,
    ) -> None:
        self._ranks = ranks
        self._clip = config.optimizer.max_grad_norm
        own = copy.deepcopy(dict(settings))
        zero = own["zero_optimization"]
        self.zero_stage: int = zero["stage"]
        """Effective ZeRO stage."""
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        """Total number of elements of the parameters."""
        # DeepSpeed allocates the full bucket, 2 GB by default.
        zero.setdefault("reduce_bucket_size", min(_BUCKET, self.parameters))
        with ExitStack() as stack:
            stack.enter_context(deterministic(config.training.deterministic))
            self._engine = self._wrap(model, optimizer, config, own)
            stack.callback(_destroy, self._engine)
            self._stack = stack.pop_all()
        decay = config.optimizer.ema_decay
        self._average = WeightAverage(self._engine, decay) if decay else None

    def _wrap(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: RunConfig,
        settings: dict[str, Any],
    ) -> Any:
        """Return DeepSpeed's engine for a model and its optimizer."""
        deepspeed = import_deepspeed()
        _allow_optimizer(type(optimizer))
        if self.zero_stage == 3:
            # DeepSpeed shards each parameter in turn, so that no device holds the full model.
            model = model.to(DTYPES[config.training.precision])
            deepspeed.zero.Init(module=model, config_dict_or_path=settings)
        else:
            model = model.to(self._ranks.device)
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer,
            config=settings,
            dist_init_required=False,
        )
        return engine

    @property
    def module(self) -> nn.Module:
        """The module in the engine; at stage 3 a parameter is gathered only while it is used."""
        module: nn.Module = self._engine.module
        return module

    @property
    def training(self) -> bool:
        """Whether the module is in training mode."""
        return self.module.training

    def train(self, mode: bool = True) -> None:
        """Put the module into training mode, or out of it."""
        self._engine.train(mode)

    def eval(self) -> None:
        """Put the module into evaluation mode."""
        self.train(False)

    def __call__(self, *args: Any) -> Any:
        """Run the module forward."""
        return self._engine(*args)

    def backward(self, loss: Tensor, last: bool) -> None:
        """Back-propagate a micro-batch's part of the step's loss; gradients add up.

        DeepSpeed averages gradients over all ranks. The loss is already normalized over the whole
        step, so a factor here cancels the averaging, and the division by the accumulation steps is
        disabled. DeepSpeed treats ranks that share positions like all other ranks: each has a part
        of the loss, and its gradient is a part of the sum. (If DeepSpeed knew about sequence
        parallelism, it would divide by different numbers at different stages.)

        Args:
            loss: scalar loss of the positions of this rank.
            last: whether this is the last micro-batch before the update. The number of
                micro-batches may vary between updates if it is the same on all ranks.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self._ranks.mesh.gradient_world, scale_wrt_gas=False)

    def step(self, learning_rate: float, skip: bool = False) -> Update:
        """Update the weights, unless the gradient is not finite.

        A skipped update changes nothing: weights, optimizer states and Adam's step count stay the
        same on all ranks, and the gradients are discarded. With fp16, an update that is not finite
        makes DeepSpeed halve its dynamic loss scale.

        Args:
            learning_rate: learning rate; each group's `factor` multiplies it.
            skip: skip this update in any case.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        return self._zero_step(skip) if self.zero_stage else self._plain_step(skip)

    def update_average(self) -> None:
        """Add the weights to the moving average, if there is one, after an applied update."""
        if self._average is not None:
            self._average.add()

    def _zero_step(self, skip: bool) -> Update:
        """Step DeepSpeed's ZeRO optimizer, which skips updates that are not finite."""
        if skip:
            with _skipping_update(self._engine.optimizer) as norms:
                self._engine.step()
            return Update(norms[-1], applied=False)
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        return Update(norm, applied=self._engine.was_step_applied())

    def _plain_step(self, skip: bool) -> Update:
        """Step torch's optimizer; all ranks hold the same gradients."""
        parameters = list(self.module.parameters())
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        value = float(norm)
        applied = math.isfinite(value) and not skip
        if applied:
            if self._clip:
                torch.nn.utils.clip_grads_with_norm_(parameters, self._clip, norm)
            self._engine.step()
        else:
            self._engine.zero_grad()
        return Update(value, applied)

    @property
    def loss_scale(self) -> float:
        """Factor of the gradients before the update; 1 except for fp16."""
        return float(getattr(self._engine.optimizer, "loss_scale", 1.0))

    def parameter_names(self) -> list[str]:
        """Return the names of all parameters, in their order."""
        return [name for name, _ in self.module.named_parameters()]

    def master_shards(self) -> dict[str, ParameterShard]:
        """Return name -> shard, for the parameters of which this rank updates a part.

        The shards of all ranks are disjoint and cover all elements.
        """
        return dict(parameter_shards(self.module, self._ranks.main))

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, full parameter) in the run's precision. All ranks must iterate.

        At stage 3, one parameter at a time is gathered.
        """
        whole = import_deepspeed().zero.GatheredParameters if self.zero_stage == 3 else nullcontext
        for name, parameter in self.module.named_parameters():
            with whole([parameter]):
                yield name, parameter.detach()

    def full_weights(self, keep: bool) -> dict[str, Tensor]:
        """Return all full parameters, float32, on the CPU. All ranks must call it.

        Args:
            keep: whether this rank needs them; the others get an empty dictionary.
        """
        return gather(self._engine, keep)

    def replicated_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, parameter) of the parameters that all ranks replicate; none at stage 3."""
        if self.zero_stage < 3:
            yield from self.module.named_parameters()

    def state(self, folder: Path, *, copying: bool) -> dict[str, Any]:
        """Return this rank's part of the state of training. All ranks must call it.

        Args:
            folder: folder of the checkpoint; states that are offloaded to NVMe are written to it.
            copying: whether to copy tensors to host memory, so that training can continue.

        Returns:
            File name -> content for `torch.save`.
        """
        return checkpoint_files(self._engine, folder, copying=copying)

    def load_state(self, path: Path, moved: Mapping[str, Tensor] = {}) -> None:
        """Load a checkpoint of any number of ranks and any ZeRO stage. All ranks must call it.

        Args:
            path: folder with the files that `state` returned on all ranks.
            moved: parameter name -> index in the files of each row, if the row order differs.

        Raises:
            ConfigError: the checkpoint is of another model, or its states cannot be resharded.
            DamagedError: a parameter in the checkpoint is incomplete.
        """
        load_engine(self._engine, path, moved)

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context inside which the module holds the moving average, if there is one.

        All ranks must enter it. Updates inside are not allowed. On exit, the weights are restored
        bit for bit. After an error inside, a checkpoint is still correct, but with ZeRO or in half
        precision the module keeps the average.
        """
        return nullcontext() if self._average is None else self._average.applied()

    def average_state(self) -> dict[str, Tensor] | None:
        """Return the full moving average, or None. All ranks must call it.

        Returns:
            Parameter name -> float32 tensor on the CPU; empty except on the main rank.
        """
        return None if self._average is None else self._average.state(self._ranks.main)

    def load_average(self, weights: Mapping[str, Tensor] | None) -> None:
        """Load a moving average; with None, start a new one from the current weights.

        Call it after `load_state`.

        Args:
            weights: result of `average_state`, on any number of ranks, at any ZeRO stage.
        """
        if self._average is None:
            return
        if weights is None:
            self._average.restart()
        else:
            self._average.load(weights)

    def close(self) -> None:
        """Free the memory of model and optimizer, and restore the changed state of this process."""
        self._stack.close()
        self._average = self._engine = None
        gc.collect()  # DeepSpeed's hooks form reference cycles.


@contextmanager
def _skipping_update(optimizer: Any) -> Iterator[list[float]]:
    """Make a ZeRO optimizer skip the update inside the context, like one that is not finite.

    At every stage, with and without offload, the optimizer calls one method for the gradient norm
    and skips the update if the result is infinite. The loss scale stays the same, because it is not
    the cause.

    Yields:
        A list whose last entry is the true norm.
    """
    from deepspeed.runtime.utils import combine_grad_norm_groups

    by_group = hasattr(optimizer, "_get_norm_groups")  # stage 3
    method = "_get_norm_groups" if by_group else "scaled_global_norm"
    true_norm = getattr(optimizer, method)
    norms = [math.inf]  # The method is not called if the gradients were already found to overflow.

    def infinite_norm() -> Any:
        scaled = combine_grad_norm_groups(true_norm() if by_group else [true_norm()])
        norms.append(float(scaled) / optimizer.loss_scale)
        infinite = torch.full_like(scaled, math.inf)
        return [infinite] if by_group else infinite

    setattr(optimizer, method, infinite_norm)
    optimizer._update_scale = lambda has_overflow: None
    try:
        yield norms
    finally:
        delattr(optimizer, method)
        del optimizer._update_scale
