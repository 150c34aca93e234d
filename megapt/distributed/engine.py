"""One model under DeepSpeed, and all that the rest of megapt asks of it."""

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
from megapt.distributed.deepspeed_config import DTYPES
from megapt.distributed.determinism import deterministic
from megapt.distributed.masters import gather
from megapt.distributed.parameter_shards import ParameterShard, parameter_shards
from megapt.distributed.ranks import Ranks
from megapt.distributed.resharding import load_engine
from megapt.distributed.saving import files_of
from megapt.distributed.start import import_deepspeed

_BUCKET = 500_000_000
"""Elements that DeepSpeed reduces at once by default."""


@dataclass(frozen=True)
class Update:
    """What has become of one update."""

    norm: float
    """Of the gradient over all ranks, before clipping; not finite if the gradient was not."""
    applied: bool
    """Whether weights and optimizer states have changed."""


def _admit(optimizer: type[torch.optim.Optimizer]) -> None:
    """Let ZeRO run an optimizer without a warning that DeepSpeed has not tested it."""
    from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS

    if optimizer not in ZERO_SUPPORTED_OPTIMIZERS:
        ZERO_SUPPORTED_OPTIMIZERS.append(optimizer)


def _release(engine: Any) -> None:
    """Have DeepSpeed let go of an engine, in its globals too."""
    from deepspeed.runtime.zero import parameter_offload

    engine.destroy()
    parameter_offload.FWD_MODULE_STACK.clear()


class Engine:
    """One model under DeepSpeed. It is called as the module is; all ranks call together.

    Args:
        model: on the CPU, float32.
        optimizer: over the model's parameters, in groups that have a `factor` of the learning rate.
        config: of the run.
        settings: DeepSpeed's configuration of the run; see `deepspeed_config`.
        ranks: of the job.
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
        """That is run."""
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        """Elements of all parameters."""
        # DeepSpeed allocates the whole bucket, 2 GB by default.
        zero.setdefault("reduce_bucket_size", min(_BUCKET, self.parameters))
        with ExitStack() as stack:
            stack.enter_context(deterministic(config.training.deterministic))
            self._engine = self._wrap(model, optimizer, config, own)
            stack.callback(_release, self._engine)
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
        """Return DeepSpeed's engine around a model and its optimizer."""
        deepspeed = import_deepspeed()
        _admit(type(optimizer))
        if self.zero_stage == 3:
            # Parameter by parameter, so that no device ever holds the whole model.
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
        """The model as it computes; at stage 3 a parameter is whole only while it is used."""
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

        DeepSpeed averages gradients over all ranks. The loss is normalized over the whole step
        already, so the average is undone here, and the division by the accumulation steps is
        switched off. Ranks that share positions are to DeepSpeed ranks like others: each has a part
        of the loss, and its gradient is a part of the sum. (Told of them, DeepSpeed divides by
        different numbers at different stages.)

        Args:
            loss: scalar; of the positions of this rank alone.
            last: whether the update follows. The number of micro-batches may differ from update to
                update, as long as all ranks agree.
        """
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self._ranks.mesh.gradient_world, scale_wrt_gas=False)

    def step(self, learning_rate: float, skip: bool = False) -> Update:
        """Update the weights, unless the gradient is not finite.

        What is left out leaves no trace: weights, optimizer states and Adam's count of its updates
        stay as they are, on all ranks, and the gradients are forgotten. Under fp16 DeepSpeed then
        halves its loss scale, which is how it finds one.

        Args:
            learning_rate: times each group's own factor.
            skip: leave out this update in any case.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        return self._zero_step(skip) if self.zero_stage else self._plain_step(skip)

    def update_average(self) -> None:
        """Take the weights into the moving average, if there is one, after an applied update."""
        if self._average is not None:
            self._average.add()

    def _zero_step(self, skip: bool) -> Update:
        """Step through DeepSpeed's ZeRO optimizer, which itself refuses what is not finite."""
        if skip:
            with _refusing(self._engine.optimizer) as norms:
                self._engine.step()
            return Update(norms[-1], applied=False)
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        return Update(norm, applied=self._engine.was_step_applied())

    def _plain_step(self, skip: bool) -> Update:
        """Step through torch's own optimizer; every rank holds the same gradients."""
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
        """What gradients are multiplied with before the update; 1 but for fp16."""
        return float(getattr(self._engine.optimizer, "loss_scale", 1.0))

    def parameter_names(self) -> list[str]:
        """Return the names of all parameters, in their order."""
        return [name for name, _ in self.module.named_parameters()]

    def master_shards(self) -> dict[str, ParameterShard]:
        """Return name -> what this rank updates of a parameter; none of those that others update.

        The shards of all ranks are disjoint and make the whole.
        """
        return dict(parameter_shards(self.module, self._ranks.main))

    def full_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, parameter) in the run's precision, whole. All ranks iterate together.

        At stage 3 one parameter at a time is gathered.
        """
        whole = import_deepspeed().zero.GatheredParameters if self.zero_stage == 3 else nullcontext
        for name, parameter in self.module.named_parameters():
            with whole([parameter]):
                yield name, parameter.detach()

    def full_weights(self, keep: bool) -> dict[str, Tensor]:
        """Return all parameters, whole, in float32, on the CPU. All ranks must call it.

        Args:
            keep: whether this rank needs them; the others get an empty dictionary.
        """
        return gather(self._engine, keep)

    def replicated_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, parameter) of what every rank holds alike: all but at stage 3, then none."""
        if self.zero_stage < 3:
            yield from self.module.named_parameters()

    def state(self, folder: Path, *, copying: bool) -> dict[str, Any]:
        """Return this rank's part of the state of training. All ranks must call it.

        Args:
            folder: where the checkpoint will be; what is offloaded to NVMe is written there.
            copying: whether tensors are copied to host memory, because training goes on meanwhile.

        Returns:
            Name of a file -> its content, for `torch.save`.
        """
        return files_of(self._engine, folder, copying=copying)

    def load_state(self, path: Path, moved: Mapping[str, Tensor] = {}) -> None:
        """Go on from a checkpoint, whatever ranks and ZeRO stage saved it. All ranks must call it.

        Args:
            path: of a folder with what `state` has returned on all ranks.
            moved: name of a parameter -> place in the files of each row, where it is another.

        Raises:
            ConfigError: it is of another model, or its states cannot be spread anew.
            DamagedError: a parameter in it is not whole.
        """
        load_engine(self._engine, path, moved)

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
        return None if self._average is None else self._average.state(self._ranks.main)

    def load_average(self, weights: Mapping[str, Tensor] | None) -> None:
        """Go on from a moving average; with None, begin one with the weights as they are now.

        Call it after `load_state`.

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
        """Free the memory of model and optimizer, and undo what was changed of this process."""
        self._stack.close()
        self._average = self._engine = None
        gc.collect()  # DeepSpeed's hooks form cycles, and another model may need the memory.


@contextmanager
def _refusing(optimizer: Any) -> Iterator[list[float]]:
    """Inside, a ZeRO optimizer leaves out the update, as it does one that is not finite.

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
