"""The losses and gradients without logits are those with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from megapt.config import LossConfig
from megapt.model.linear_cross_entropy import Losses, linear_cross_entropy
from tests.chance import assert_fits

FULL = LossConfig(z_loss=0.1, label_smoothing=0.2)


@dataclass(frozen=True)
class Case:
    states: Tensor
    matrix: Tensor
    bias: Tensor | None
    labels: Tensor
    weights: Tensor
    terms: LossConfig = FULL

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.states, self.matrix, self.bias) if t is not None]

    def to(self, dtype: torch.dtype) -> Case:
        """The same numbers in another type; new leaves."""
        states, matrix = (t.detach().to(dtype) for t in (self.states, self.matrix))
        bias = None if self.bias is None else self.bias.detach().to(dtype)
        moved = replace(self, states=states, matrix=matrix, bias=bias)
        for leaf in moved.leaves:
            leaf.requires_grad_()
        return moved

    def losses(self, **options: Any) -> Losses:
        parts = self.states, self.matrix, self.bias, self.labels, self.weights
        return linear_cross_entropy(*parts, terms=self.terms, **options)

    def reference(self) -> Losses:
        """Torch's own, of all logits at once."""
        logits = functional.linear(self.states, self.matrix, self.bias)
        smoothed = functional.cross_entropy(
            logits, self.labels, reduction="none", label_smoothing=self.terms.label_smoothing
        )
        full = smoothed + self.terms.z_loss * logits.logsumexp(dim=-1).square()
        nll = functional.cross_entropy(logits, self.labels, reduction="none")
        correct = (logits.argmax(dim=-1) == self.labels).to(logits.dtype)
        return Losses((self.weights * full).sum(), nll, correct)


def make_case(
    targets: int, classes: int, width: int = 5, seed: int = 0, *, bias: bool = True
) -> Case:
    generator = torch.Generator().manual_seed(seed)
    case = Case(
        states=2 * torch.randn(targets, width, generator=generator, dtype=torch.float64),
        matrix=torch.randn(classes, width, generator=generator, dtype=torch.float64),
        bias=torch.randn(classes, generator=generator, dtype=torch.float64) if bias else None,
        labels=torch.randint(classes, (targets,), generator=generator),
        weights=torch.rand(targets, generator=generator, dtype=torch.float64),
    )
    return case.to(torch.float64)


cases = st.builds(
    make_case,
    targets=st.integers(0, 12),
    classes=st.integers(1, 40),
    seed=st.integers(0, 5),
    bias=st.booleans(),
)
terms = st.builds(
    LossConfig,
    z_loss=st.sampled_from([0.0, 1e-4, 0.3]),
    label_smoothing=st.sampled_from([0.0, 0.1, 0.9]),
)


@given(cases, terms, st.integers(1, 500))
def test_losses_and_gradients_are_those_of_all_logits(
    case: Case, terms: LossConfig, chunk: int
) -> None:
    case = replace(case, terms=terms)
    mine, expected = case.losses(chunk_logits=chunk), case.reference()
    for found, value in zip(mine[:3], expected[:3], strict=True):
        torch.testing.assert_close(found, value, atol=1e-12, rtol=1e-12)
    for found, value in zip(
        torch.autograd.grad(3 * mine.loss, case.leaves),
        torch.autograd.grad(3 * expected.loss, case.leaves),
        strict=True,
    ):
        torch.testing.assert_close(found, value, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_computes_the_same(dtype: torch.dtype) -> None:
    """In chunks of unlike sizes too, for which nothing is compiled again."""
    case = make_case(23, 31).to(dtype)
    draws = torch.rand(23, generator=torch.Generator().manual_seed(1))
    plain, compiled = (
        case.losses(chunk_logits=310, draws=draws, compiled=compiled) for compiled in (False, True)
    )
    rough = 1e-6 if dtype == torch.float32 else 1e-2
    for found, value in zip(compiled, plain, strict=True):
        torch.testing.assert_close(found, value, atol=rough, rtol=rough)
    for found, value in zip(
        torch.autograd.grad(compiled.loss, case.leaves),
        torch.autograd.grad(plain.loss, case.leaves),
        strict=True,
    ):
        torch.testing.assert_close(found, value, atol=rough, rtol=rough)


def test_gradients_are_those_of_finite_differences() -> None:
    case = make_case(7, 11)

    def loss(states: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        return replace(case, states=states, matrix=matrix, bias=bias).losses(chunk_logits=33).loss

    assert torch.autograd.gradcheck(loss, case.leaves)


@settings(max_examples=25)
@given(st.integers(1, 40), st.integers(1, 3000))
def test_the_chunks_change_nothing_but_rounding(targets: int, chunk: int) -> None:
    case = make_case(targets, 73, 16).to(torch.float32)
    one, many = case.losses(), case.losses(chunk_logits=chunk)
    for mine, other in zip(one[:3], many[:3], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
    gradients = (torch.autograd.grad(loss, case.leaves) for loss in (one.loss, many.loss))
    for gradient, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2**24])
def test_bfloat16_states_have_a_float32_softmax_and_sum(chunk: int) -> None:
    """Not even 500 chunks, each added to the gradient of the matrix, lose its precision."""
    rough = make_case(500, 73, 16).to(torch.bfloat16)
    exact = rough.to(torch.float64)
    mine, expected = rough.losses(chunk_logits=chunk), exact.reference()
    assert mine.loss.dtype == mine.nll.dtype == torch.float32
    torch.testing.assert_close(mine.nll.double(), expected.nll, atol=0.1, rtol=0.02)
    gradients = torch.autograd.grad(mine.loss, rough.leaves)
    for gradient, value in zip(
        gradients, torch.autograd.grad(expected.loss, exact.leaves), strict=True
    ):
        assert gradient.dtype == torch.bfloat16
        assert (gradient.double() - value).norm() < 0.01 * value.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_small_weights_lose_nothing(dtype: torch.dtype) -> None:
    """Those of a step of a billion targets, under a loss that is scaled up again."""
    case = make_case(9, 20).to(dtype)
    small = replace(case, weights=case.weights * 2.0**-30)
    expected = torch.autograd.grad(case.losses().loss, case.leaves)
    found = torch.autograd.grad(small.losses().loss * 2.0**30, case.leaves)
    assert all(torch.equal(mine, other) for mine, other in zip(found, expected, strict=True))


def test_without_weight_there_is_no_gradient() -> None:
    case = make_case(4, 9)
    losses = replace(case, weights=torch.zeros(4)).losses()
    assert losses.loss == 0
    assert not any(g.any() for g in torch.autograd.grad(losses.loss, case.leaves))


def test_without_gradients_the_losses_are_the_same() -> None:
    case = make_case(7, 11)
    with torch.no_grad():
        losses = case.losses()
    assert not losses.loss.requires_grad
    for mine, other in zip(losses[:3], case.losses()[:3], strict=True):
        assert torch.equal(mine, other)


def test_what_is_frozen_gets_no_gradient() -> None:
    case = make_case(7, 11)
    expected = torch.autograd.grad(case.losses().loss, case.states)
    case.matrix.requires_grad_(False)
    losses = case.losses()
    assert not losses.nll.requires_grad
    losses.loss.backward()
    assert case.matrix.grad is None
    assert case.states.grad is not None
    torch.testing.assert_close(case.states.grad, expected[0])


def test_a_second_derivative_is_refused() -> None:
    case = make_case(3, 4)
    squared = case.losses().loss.square()
    (gradient,) = torch.autograd.grad(squared, case.states, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        found = out if isinstance(out, tuple | list) else [out]
        tensors = [t for t in found if isinstance(t, Tensor)]
        self.elements = max(self.elements, *(t.numel() for t in tensors), 0)
        return out


def test_no_more_logits_exist_than_those_of_a_chunk() -> None:
    case = make_case(100, 60, 4)
    with Largest() as largest:
        case.losses(chunk_logits=600).loss.backward()
    assert largest.elements == 600
    with Largest() as largest:
        case.reference().loss.backward()
    assert largest.elements == 6000


def test_three_products_of_matrices_are_all() -> None:
    case = make_case(7, 11)
    with FlopCounterMode(display=False) as counter:
        case.losses(chunk_logits=33).loss.backward()
    assert counter.get_total_flops() == 3 * 2 * 7 * 11 * 5


def drawn(logits: list[float], draws: list[float]) -> list[int]:
    """Samples from the softmax of `logits`, one for each draw."""
    states, matrix = torch.ones(len(draws), 1), torch.tensor(logits)[:, None]
    labels, weights = torch.zeros(len(draws), dtype=torch.int64), torch.ones(len(draws))
    losses = linear_cross_entropy(states, matrix, None, labels, weights, torch.tensor(draws))
    assert losses.samples is not None
    return losses.samples.tolist()


def test_samples_invert_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.125, 0.25, 0.125]).log().tolist()
    draws = [0.0, 0.49, 0.51, 0.62, 0.63, 0.874, 0.876, 1 - 2**-24, 1.0]
    assert drawn(logits, draws) == [0, 0, 1, 1, 2, 2, 3, 3, 3]


def test_what_has_no_probability_is_never_sampled() -> None:
    assert drawn([-1e4, 0.0, -1e4, 0.0, -1e4], [0.0, 0.499, 0.5, 1 - 2**-24]) == [1, 1, 3, 3]


def test_samples_are_distributed_as_the_softmax() -> None:
    logits = torch.randn(20, generator=torch.Generator().manual_seed(1))
    draws = np.random.default_rng(0).random(20_000).tolist()
    counts = np.bincount(drawn(logits.tolist(), draws), minlength=20)
    assert_fits(counts, logits.softmax(dim=0).numpy())


def test_samples_do_not_depend_on_the_chunks() -> None:
    case, draws = make_case(50, 20), torch.rand(50, generator=torch.Generator().manual_seed(0))
    one, many = case.losses(draws=draws), case.losses(draws=draws, chunk_logits=60)
    assert one.samples is not None
    assert many.samples is not None
    assert torch.equal(one.samples, many.samples)
