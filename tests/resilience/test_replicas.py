"""One wrong bit in the weights of one rank is found, and the rank is named."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
from torch import Tensor

from megapt.distributed.ranks import Ranks
from megapt.errors import TrainingError
from megapt.resilience import replicas
from megapt.resilience.replicas import compare_replicas, compare_weights, digest
from tests.distributed.engines import tiny_config, tiny_engine
from tests.ranks import run_ranks

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8]


def flip(tensor: Tensor, index: int, bit: int) -> None:
    """Flip one bit of one element, in place."""
    octets = tensor.view(-1).view(torch.uint8)
    octets[index * tensor.element_size() + bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_single_bit_counts(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "_CHUNK", 4)
    tensor = torch.arange(11).to(dtype)
    digests = {int(digest(tensor))}
    for index in range(len(tensor)):
        for bit in range(8 * tensor.element_size()):
            flip(tensor, index, bit)
            digests.add(int(digest(tensor)))
            flip(tensor, index, bit)
    assert len(digests) == 1 + len(tensor) * 8 * tensor.element_size()


def test_places_count_and_shapes_do_not() -> None:
    tensor = torch.randn(6, 5)
    assert digest(tensor) == digest(tensor.view(-1))
    assert digest(tensor) == digest(tensor.T.contiguous().T)
    assert digest(tensor) != digest(tensor.T)
    assert digest(tensor) != digest(tensor.flip(0))
    assert digest(torch.tensor([0.0])) != digest(torch.tensor([-0.0]))
    assert digest(torch.zeros(0)) == 0


def compare_with_a_fault(ranks: Ranks, ill: list[int]) -> str:
    weights = [("first", torch.ones(9)), ("second", torch.arange(12.0).view(3, 4))]
    if ranks.rank in ill:
        flip(weights[1][1], 7, ranks.rank)
    try:
        compare_weights(weights, ranks)
    except TrainingError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("world", "ill", "said"),
    [
        (1, [0], ""),
        (3, [], ""),
        (3, [1], "the weights of rank 1 on host"),
        (4, [3], "the weights of rank 3 on host"),
        (2, [1], "the ranks' weights differ, and no majority shows which are right (hosts: "),
    ],
)
def test_the_rank_that_differs_is_named_on_all(world: int, ill: list[int], said: str) -> None:
    messages = run_ranks(world, compare_with_a_fault, ill)
    assert len(set(messages)) == 1
    assert messages[0].startswith(said)
    assert bool(messages[0]) == bool(said)
    if said:
        assert "1 of 2 parameters, first 'second'" in messages[0]


def compare_an_engine(ranks: Ranks, stage: int, precision: str) -> None:
    config = tiny_config(parallel={"zero_stage": stage}, training={"precision": precision})
    with closing(tiny_engine(config, ranks)) as engine:
        compare_replicas(engine, ranks)
        name, parameter = next(engine.module.named_parameters())
        if ranks.rank == 1:
            flip(parameter.data.view(-1), 0, 3)
        with pytest.raises(TrainingError, match=f"first '{name}'"):
            compare_replicas(engine, ranks)


@pytest.mark.parametrize(
    ("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "bf16"), (2, "fp32")]
)
def test_the_weights_of_an_engine_are_compared(stage: int, precision: str) -> None:
    run_ranks(2, compare_an_engine, stage, precision)


def compare_shards(ranks: Ranks, stage: int) -> None:
    with closing(tiny_engine(tiny_config(parallel={"zero_stage": stage}), ranks)) as engine:
        assert not list(engine.replicated_parameters())
        compare_replicas(engine, ranks)


def test_shards_are_not_compared() -> None:
    run_ranks(2, compare_shards, 3)
