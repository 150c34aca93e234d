"""The memory of a pass, against tensors that are there."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from megapt.config import Origins, RunConfig
from megapt.distributed.deepspeed_config import DTYPES
from megapt.distributed.footprint import Trace
from megapt.model import build_model
from megapt.planning.text import made_up_batch, made_up_text
from megapt.planning.tracing import Tracer, parameters_by_part
from megapt.training.parts import find_parts
from tests.objectives.builders import PRESETS
from tests.planning.planning import run
from tests.training.runs import ALONE

TEXT = made_up_text(2000, labels=2)


def traced(config: RunConfig, windows: int = 4, device: str = "cpu") -> Trace:
    parts = find_parts(config, replace(ALONE, device=torch.device(device)), Origins(), TEXT)
    batch = made_up_batch(TEXT, parts.objective, config.data.window, windows)
    return Tracer(config, parts, device).trace(batch)


def saved_bytes(config: RunConfig, windows: int = 4) -> int:
    """What autograd keeps after the forward pass of a real model, but for its parameters."""
    objective = find_parts(config, ALONE, Origins(), TEXT).objective
    batch = made_up_batch(TEXT, objective, config.data.window, windows)
    model = build_model(config, objective.heads, TEXT.vocabulary.size)
    model.to(DTYPES[config.training.precision])
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = model.trunk(batch)
    assert states.requires_grad
    for parameter in model.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    batched = [batch.tokens, batch.positions, batch.segments, *batch.groups]
    for tensor in batched:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("objective", ["arlm", "mlm", "mgm"])
def test_what_the_trunk_keeps_is_what_autograd_saves(objective: str, precision: str) -> None:
    config = run(objective, training={"precision": precision})
    # Beside it lives what is saved by nobody, such as the batch and the trunk's result.
    assert traced(config).trunk == pytest.approx(saved_bytes(config), rel=0.06)


@pytest.mark.parametrize("name", sorted(file.stem for file in PRESETS.glob("*.yaml")))
def test_every_objective_can_be_traced(name: str) -> None:
    trace = traced(run(name))
    assert trace.most >= trace.trunk > 0
    assert trace.peaks.shape == trace.finished.shape


def test_all_gradients_are_finished_in_the_end() -> None:
    config = run()
    trace = traced(config)
    run_parts = find_parts(config, ALONE, Origins(), TEXT)
    parts = parameters_by_part(Tracer(config, run_parts, "cpu").model)
    assert trace.finished[0] == 0
    assert trace.finished[-1] == sum(parts.values())
    assert parts["embeddings"] == (2000 + 2) * 64
    assert trace.peaks[-1] < 0.1 * trace.most  # the batch and the loss are left


def test_memory_grows_with_the_micro_batch_and_falls_with_recomputation() -> None:
    one, two = (traced(run(), windows).trunk for windows in (4, 8))
    assert two == pytest.approx(2 * one, rel=0.01)
    kinds = [
        traced(run(training={"recompute": kind}, model={"num_layers": 6})).most
        for kind in ("none", "selective", "full")
    ]
    assert kinds[0] > 1.2 * kinds[1] > 1.2 * kinds[2]


@pytest.mark.parametrize(
    ("objective", "attention"), [("arlm", "flex"), ("arlm", "varlen"), ("mgm", "flex")]
)
def test_kernels_without_masks_keep_less(objective: str, attention: str) -> None:
    training: dict[str, Any] = {"precision": "bf16"}
    grouped = traced(run(objective, training=training), device="cuda")
    fused = traced(run(objective, training={**training, "attention": attention}), device="cuda")
    assert fused.most < grouped.most


def test_cuda_normalises_in_one_kernel() -> None:
    config = run(training={"precision": "bf16"})
    assert traced(config, device="cuda").trunk < traced(config, device="cpu").trunk


def test_nothing_is_computed() -> None:
    wide = {"num_layers": 8, "hidden_size": 4096, "num_heads": 32, "intermediate_size": 11008}
    began = time.process_time()
    trace = traced(run(model=wide, data={"window": 4096}))
    assert trace.most > 30e9
    assert time.process_time() - began < 8
