"""Cross-entropy of a projection to the vocabulary whose logits never exist all at once.

The targets are taken in chunks; of each the logits, the losses and the gradients of states, matrix
and bias are computed in one pass, so that the backward pass only scales what is there already (Hsu
et al. 2024, Liger Kernel; cf. Wijmans et al. 2024, Cut Cross-Entropy). Beside the gradients, memory
is that of one chunk, whatever the number of targets.

`torch.nn.functional.linear_cross_entropy` (as of torch 2.13) does not serve: it weighs classes, not
targets, its chunks know no label smoothing, and it gives neither the log-sum-exp that a z-loss
needs nor the most likely label.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from megapt.config import LossConfig, ModelConfig

CHUNK_LOGITS = 2**24
"""Most logits at once, 64 MiB of float32: smaller chunks are slower, larger ones hardly faster."""

PLAIN = LossConfig()


class Losses(NamedTuple):
    """What a head makes of its t targets."""

    loss: Tensor
    """Weighted sum with all terms, float32 scalar; differentiable, unlike the rest."""
    nll: Tensor
    """Plain cross-entropy of each target, float32 [t]."""
    correct: Tensor
    """1 where the most likely label is the right one, float32 [t]."""
    samples: Tensor | None = None
    """A label drawn for each target, int64 [t], if that was asked for."""


class _Chunk(NamedTuple):
    """What the logits of some targets give."""

    full: Tensor
    """Loss of each with all terms, before its weight, [targets]."""
    nll: Tensor
    correct: Tensor
    samples: Tensor | None
    exp_logits: Tensor
    """Probabilities but for a factor, [targets, V]; in the place of the logits."""
    total: Tensor
    """Their sums, [targets, 1]."""
    log_z: Tensor
    """[targets, 1]."""


def _consume(logits: Tensor, labels: Tensor, draws: Tensor | None, terms: LossConfig) -> _Chunk:
    """Turn logits [targets, V] into losses, in place."""
    labels = labels[:, None]
    top, likeliest = logits.max(dim=-1, keepdim=True)
    logits -= top
    label_logit = logits.gather(1, labels)
    target_logit = label_logit
    if terms.label_smoothing:
        target_logit = torch.lerp(
            label_logit, logits.mean(dim=-1, keepdim=True), terms.label_smoothing
        )
    exp_logits = logits.exp_()
    total = exp_logits.sum(dim=-1, keepdim=True)
    log_total = total.log()
    log_z = log_total + top
    full = log_total - target_logit + terms.z_loss * log_z.square()
    nll, correct = log_total - label_logit, likeliest == labels
    samples = None
    if draws is not None:
        reached = exp_logits.cumsum(dim=-1)
        found = torch.searchsorted(reached, draws[:, None] * reached[:, -1:], right=True)
        samples = found.clamp_(max=exp_logits.shape[1] - 1)[:, 0]
    return _Chunk(full[:, 0], nll[:, 0], correct[:, 0], samples, exp_logits, total, log_z)


def _grad_logits(chunk: _Chunk, labels: Tensor, weights: Tensor, terms: LossConfig) -> Tensor:
    """Turn `exp_logits`, in place, into the gradient of the loss by logits, [targets, V]."""
    weights = weights[:, None]
    grad_logits = chunk.exp_logits.mul_(
        weights * (1 + 2 * terms.z_loss * chunk.log_z) / chunk.total
    )
    if terms.label_smoothing:
        grad_logits -= weights * (terms.label_smoothing / grad_logits.shape[1])
    rest = weights * (terms.label_smoothing - 1)
    if torch.compiler.is_compiling():  # In the same pass as the rest; to scatter takes another.
        columns = torch.arange(grad_logits.shape[1], device=grad_logits.device)
        return grad_logits + torch.where(columns == labels[:, None], rest, 0.0)
    return grad_logits.scatter_add_(1, labels[:, None], rest)


class _Differentiated(NamedTuple):
    """What a chunk comes to once its logits are used up."""

    full: Tensor
    nll: Tensor
    correct: Tensor
    samples: Tensor | None
    grad_logits: Tensor | None
    """Gradient of the weighted loss by logits, in the type of the states, [targets, V]."""
    grad_bias: Tensor | None


def _differentiate(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    draws: Tensor | None,
    terms: LossConfig,
    needed: bool,
    with_bias: bool,
) -> _Differentiated:
    """Return losses and gradients of logits [targets, V], whose place the gradient may take."""
    chunk = _consume(logits.to(weights.dtype), labels, draws, terms)
    if not needed:
        return _Differentiated(chunk.full, chunk.nll, chunk.correct, chunk.samples, None, None)
    grad_logits = _grad_logits(chunk, labels, weights, terms)
    return _Differentiated(
        chunk.full,
        chunk.nll,
        chunk.correct,
        chunk.samples,
        grad_logits.to(logits.dtype),
        grad_logits.sum(dim=0) if with_bias else None,
    )


@cache
def _fused() -> Callable[..., _Differentiated]:
    """Return `_differentiate` in three passes over the logits instead of ten."""
    fused: Callable[..., _Differentiated] = torch.compile(_differentiate, dynamic=True)
    return fused


class _Gradients(NamedTuple):
    """Of the loss, divided by `scale`."""

    states: Tensor | None
    matrix: Tensor | None
    bias: Tensor | None
    scale: Tensor
    """A power of two, scalar."""


def _compute(
    states: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
    draws: Tensor | None,
    terms: LossConfig,
    chunk_logits: int,
    compiled: bool,
    *,
    needed: tuple[bool, ...],
) -> tuple[Losses, _Gradients]:
    """Return losses and those gradients, of states, matrix and bias, that are needed."""
    exact = torch.promote_types(states.dtype, torch.float32)
    weights = weights.to(exact)
    # Weights are as small as 1 / targets of a step: half precision would lose the least gradients.
    # A power of two scales without rounding.
    largest = functional.pad(weights, (1, 0)).amax()
    scale = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)
    grad_states = torch.empty_like(states) if needed[0] else None
    grad_matrix = torch.zeros_like(matrix, dtype=exact) if needed[1] else None
    grad_bias = torch.zeros_like(matrix[:, 0], dtype=exact) if needed[2] else None
    full, nll, correct = (torch.empty_like(weights) for _ in range(3))
    samples = None if draws is None else torch.empty_like(labels)
    rows = max(chunk_logits // len(matrix), 1)
    differentiate = _fused() if compiled else _differentiate
    for first in range(0, len(states), rows):
        at = slice(first, first + rows)
        chunk = differentiate(
            functional.linear(states[at], matrix, bias),
            labels[at],
            weights[at] / scale,
            None if draws is None else draws[at],
            terms,
            any(needed),
            grad_bias is not None,
        )
        full[at], nll[at], correct[at] = chunk.full, chunk.nll, chunk.correct
        if samples is not None and chunk.samples is not None:
            samples[at] = chunk.samples
        if chunk.grad_logits is None:
            continue
        if grad_bias is not None and chunk.grad_bias is not None:
            grad_bias += chunk.grad_bias
        if grad_states is not None:
            torch.mm(chunk.grad_logits, matrix, out=grad_states[at])
        if grad_matrix is not None and exact == states.dtype:
            torch.addmm(grad_matrix, chunk.grad_logits.T, states[at], out=grad_matrix)
        elif grad_matrix is not None:
            grad_matrix += chunk.grad_logits.T @ states[at]
    losses = Losses((weights * full).sum(), nll, correct, samples)
    grad_matrix = None if grad_matrix is None else grad_matrix.to(matrix.dtype)
    grad_bias = None if grad_bias is None else grad_bias.to(matrix.dtype)
    return losses, _Gradients(grad_states, grad_matrix, grad_bias, scale)


class _LinearCrossEntropy(torch.autograd.Function):
    """`_compute` under autograd."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, matrix: Tensor, bias: Tensor | None, *rest: Any
    ) -> Losses:
        losses, gradients = _compute(states, matrix, bias, *rest, needed=ctx.needs_input_grad[:3])
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*(t for t in losses[1:] if t is not None))
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, scale = ctx.saved_tensors
        factor = slope * scale
        scaled = (None if g is None else g * factor.to(g.dtype) for g in gradients)
        return *scaled, None, None, None, None, None, None


def linear_cross_entropy(
    states: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    weights: Tensor,
    draws: Tensor | None = None,
    *,
    terms: LossConfig = PLAIN,
    chunk_logits: int = CHUNK_LOGITS,
    compiled: bool = False,
) -> Losses:
    """Return the losses of predicting `labels` with softmax(states matrix^T + bias).

    With p the softmax, Z its denominator, e the label smoothing and V the number of classes, the
    loss is sum_i w_i (-(1 - e) log p_i(label) - e/V sum_v log p_i(v) + z_loss log^2 Z_i): Szegedy
    et al. 2016, section 7, and Chowdhery et al. 2022, section 5.

    The softmax and all sums are float32, products of matrices have the type of the states. The
    chunks do not change the result beyond rounding. There are no second derivatives.

    Args:
        states: [t, width]; t may be 0.
        matrix: [V, width].
        bias: [V].
        labels: int64 [t].
        weights: w, factors of the losses, not negative, [t].
        draws: uniform in [0, 1), [t]: `samples` are then drawn from p by inverse transform,
            the first v with p(0) + ... + p(v) > draw.
        terms: beside the cross-entropy.
        chunk_logits: most logits at once, but at least those of one target.
        compiled: what is done to the logits of a chunk is compiled into one pass or a few.
    """
    rest = labels, weights, draws, terms, chunk_logits, compiled
    if torch.is_grad_enabled():
        losses = _LinearCrossEntropy.apply(states, matrix, bias, *rest)  # type: ignore[no-untyped-call]
        return Losses(*losses)
    return _compute(states, matrix, bias, *rest, needed=(False, False, False))[0]


class VocabularyProjection(nn.Linear):
    """The projection to the vocabulary, and its losses without the logits.

    A module, so that whatever gathers the parameters of modules (ZeRO-3) sees to its matrix, which
    may be the word embedding.

    Args:
        config: of the model: width, bias, and whether the matrix is that of `words`.
        words: the word embedding of the trunk.
        terms: beside the cross-entropy.

    Attributes:
        compiled: whether the losses are computed by compiled code.
    """

    def __init__(self, config: ModelConfig, words: nn.Embedding, terms: LossConfig) -> None:
        super().__init__(config.hidden_size, words.num_embeddings, bias=config.bias)
        if config.tie_word_embeddings:
            self.weight = words.weight
        self.terms = terms
        self.compiled = False

    def forward(
        self,
        states: Tensor,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        draws: Tensor | None = None,
    ) -> Any:
        """Return logits [t, vocabulary] of states [t, hidden]; with labels and weights, `Losses`.

        See `linear_cross_entropy`.
        """
        if labels is None or weights is None:
            return super().forward(states)
        return linear_cross_entropy(
            states,
            self.weight,
            self.bias,
            labels,
            weights,
            draws,
            terms=self.terms,
            compiled=self.compiled,
        )
