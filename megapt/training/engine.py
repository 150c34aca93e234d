"""The DeepSpeed engine: what it is told, and the little that it is not trusted with."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from megapt.config import OptimizerConfig, RunConfig
from megapt.training.distributed import Ranks, import_deepspeed


def deepspeed_config(config: RunConfig, world: int) -> dict[str, Any]:
    """Return DeepSpeed's own configuration; batch sizes are resolved here and nowhere else."""
    training = config.training
    share = training.global_batch // world
    # DeepSpeed's bfloat16 optimiser without ZeRO begins with an update of zeros, which Adam counts
    # and weight decay does not spare, and it does not give out its float32 weights. Stage 1
    # computes the same update right.
    stage = config.parallel.zero_stage
    if training.precision == "bf16":
        stage = max(stage, 1)
    return {
        "train_batch_size": training.global_batch,
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": share // training.micro_batch,
        "gradient_clipping": config.optimizer.clip,
        "zero_optimization": {"stage": stage},
        "bf16": {"enabled": training.precision == "bf16"},
        # The learning rate and the metrics are the trainer's; DeepSpeed prints nothing.
        "steps_per_print": None,
        "wall_clock_breakdown": False,
    }


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW over two groups: matrices and word embeddings decay, the rest does not."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        table = name.endswith(("embeddings.positions.weight", "embeddings.segments.weight"))
        (plain if parameter.ndim < 2 or table else decayed).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=next(model.parameters()).is_cuda,
    )


class Engine:
    """One model under DeepSpeed.

    Args:
        model: on the CPU, float32.
        config: of the run.
        ranks: of the job.
    """

    def __init__(self, model: nn.Module, config: RunConfig, ranks: Ranks) -> None:
        deepspeed = import_deepspeed()
        model = model.to(ranks.device)
        self.deepspeed, *_ = deepspeed.initialize(
            model=model,
            optimizer=make_optimizer(model, config.optimizer),
            config=deepspeed_config(config, ranks.world),
            dist_init_required=False,
        )
        self._world = ranks.world
        self._plain = config.parallel.zero_stage == 0 and config.training.precision == "fp32"

    def backward(self, loss: torch.Tensor) -> None:
        """Back-propagate a share of the step's loss; gradients add up over micro-batches and ranks.

        DeepSpeed averages gradients over ranks. The loss is normalised over the whole step
        already, so the average is undone here, and its division by the accumulation steps is
        switched off.
        """
        self.deepspeed.backward(loss * self._world, scale_wrt_gas=False)

    def step(self, learning_rate: float, last: bool) -> float:
        """Finish a micro-batch; after the last one, update.

        Returns:
            The global gradient norm before clipping; 0 unless `last`.
        """
        for group in self.deepspeed.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = self._gradient_norm() if last and self._plain else 0.0
        self.deepspeed.step()
        if last and not self._plain:
            norm = float(self.deepspeed.get_global_grad_norm())
        return norm

    def _gradient_norm(self) -> float:
        """Return the norm of the summed gradients; the engine computes it only when it shards."""
        gradients = [p.grad for p in self.deepspeed.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def close(self) -> None:
        """Free the engine's memory and hooks."""
        self.deepspeed.destroy()
