"""Cross-entropy of a projection to the vocabulary that never holds all logits at once.

The targets are processed in chunks. One pass over a chunk computes its logits, its losses and the
gradients of states, matrix and bias, so that the backward pass only scales these gradients (Hsu et
al. 2024, Liger Kernel; cf. Wijmans et al. 2024, Cut Cross-Entropy). Apart from the gradients, the
memory is that of one chunk, whatever the number of targets.

`torch.nn.functional.linear_cross_entropy` (as of torch 2.13) is not sufficient: it weights classes,
not targets, its chunks do not support label smoothing, and it returns neither the log-sum-exp that
a z-loss needs nor the most likely label.
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
"""Maximum number of logits in memory, 64 MiB of float32; smaller chunks are slower, larger ones
hardly faster."""

PLAIN = LossConfig()


class Losses(NamedTuple):
    """The losses of the t targets of a head."""

    loss: Tensor
    """Weighted sum with all terms, float32 scalar; the only differentiable field."""
    nll: Tensor
    """Plain cross-entropy of each target, float32 [t]."""
    correct: Tensor
    """1 where the most likely label is the right one, float32 [t]."""
    samples: Tensor | None = None
    """A label drawn for each target, int64 [t]; None without draws."""


class _Chunk(NamedTuple):
    """The losses of one chunk, and what their gradient needs."""

    loss: Tensor
    """Loss of each target with all terms, unweighted, [targets]."""
    nll: Tensor
    correct: Tensor
    samples: Tensor | None
    exp_logits: Tensor
    """Unnormalized probabilities, [targets, V]; they overwrite the logits."""
    total: Tensor
    """Sums of `exp_logits`, [targets, 1]."""
    log_z: Tensor
    """Log-sum-exp of the logits, [targets, 1]."""


def _chunk_losses(
    logits: Tensor, labels: Tensor, draws: Tensor | None, terms: LossConfig
) -> _Chunk:
    """Return the losses of logits [targets, V], which are overwritten."""
    labels = labels[:, None]
    top, argmax = logits.max(dim=-1, keepdim=True)
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
    loss = log_total - target_logit + terms.z_loss * log_z.square()
    nll, correct = log_total - label_logit, argmax == labels
    samples = None
    if draws is not None:
        cumulative = exp_logits.cumsum(dim=-1)
        found = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True)
        samples = found.clamp_(max=exp_logits.shape[1] - 1)[:, 0]
    return _Chunk(loss[:, 0], nll[:, 0], correct[:, 0], samples, exp_logits, total, log_z)


def _grad_logits(chunk: _Chunk, labels: Tensor, weights: Tensor, terms: LossConfig) -> Tensor:
    """Return the gradient of the loss by logits, [targets, V]; it overwrites `exp_logits`."""
    weights = weights[:, None]
    grad_logits = chunk.exp_logits.mul_(
        weights * (1 + 2 * terms.z_loss * chunk.log_z) / chunk.total
    )
    if terms.label_smoothing:
        grad_logits -= weights * (terms.label_smoothing / grad_logits.shape[1])
    rest = weights * (terms.label_smoothing - 1)
    if torch.compiler.is_compiling():  # One pass; a scatter would add a second one.
        columns = torch.arange(grad_logits.shape[1], device=grad_logits.device)
        return grad_logits + torch.where(columns == labels[:, None], rest, 0.0)
    return grad_logits.scatter_add_(1, labels[:, None], rest)


class _Differentiated(NamedTuple):
    """The losses and gradients of one chunk."""

    loss: Tensor
    nll: Tensor
    correct: Tensor
    samples: Tensor | None
    grad_logits: Tensor | None
    """Gradient of the weighted loss by logits, [targets, V], in the dtype of the states."""
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
    """Return losses and gradients of logits [targets, V], which may be overwritten."""
    chunk = _chunk_losses(logits.to(weights.dtype), labels, draws, terms)
    if not needed:
        return _Differentiated(chunk.loss, chunk.nll, chunk.correct, chunk.samples, None, None)
    grad_logits = _grad_logits(chunk, labels, weights, terms)
    return _Differentiated(
        chunk.loss,
        chunk.nll,
        chunk.correct,
        chunk.samples,
        grad_logits.to(logits.dtype),
        grad_logits.sum(dim=0) if with_bias else None,
    )


@cache
def _fused() -> Callable[..., _Differentiated]:
    """Return `_differentiate` compiled to three passes over the logits instead of ten."""
    fused: Callable[..., _Differentiated] = torch.compile(_differentiate, dynamic=True)
    return fused


class _Gradients(NamedTuple):
    """Gradients of the loss, divided by `scale`."""

    states: Tensor | None
    matrix: Tensor | None
    bias: Tensor | None
    scale: Tensor
    """Scalar, a power of two."""


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
    """Return the losses and the needed gradients, in the order states, matrix, bias."""
    sum_dtype = torch.promote_types(states.dtype, torch.float32)
    weights = weights.to(sum_dtype)
    # Weights are as small as 1 / targets of a step: the smallest gradients would underflow in half
    # precision. Scaling by a power of two does not round.
    largest = functional.pad(weights, (1, 0)).amax()
    scale = torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent)
    grad_states = torch.empty_like(states) if needed[0] else None
    grad_matrix = torch.zeros_like(matrix, dtype=sum_dtype) if needed[1] else None
    grad_bias = torch.zeros_like(matrix[:, 0], dtype=sum_dtype) if needed[2] else None
    loss, nll, correct = (torch.empty_like(weights) for _ in range(3))
    samples = None if draws is None else torch.empty_like(labels)
    rows = max(chunk_logits // len(matrix), 1)
    differentiate = _fused() if compiled else _differentiate
    for first in range(0, len(states), rows):
        span = slice(first, first + rows)
        chunk = differentiate(
            functional.linear(states[span], matrix, bias),
            labels[span],
            weights[span] / scale,
            None if draws is None else draws[span],
            terms,
            any(needed),
            grad_bias is not None,
        )
        loss[span], nll[span], correct[span] = chunk.loss, chunk.nll, chunk.correct
        if samples is not None and chunk.samples is not None:
            samples[span] = chunk.samples
        if chunk.grad_logits is None:
            continue
        if grad_bias is not None and chunk.grad_bias is not None:
            grad_bias += chunk.grad_bias
        if grad_states is not None:
            torch.mm(chunk.grad_logits, matrix, out=grad_states[span])
        if grad_matrix is not None and sum_dtype == states.dtype:
            torch.addmm(grad_matrix, chunk.grad_logits.T, states[span], out=grad_matrix)
        elif grad_matrix is not None:
            grad_matrix += chunk.grad_logits.T @ states[span]
    losses = Losses((weights * loss).sum(), nll, correct, samples)
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
    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, scale = ctx.saved_tensors
        factor = grad_output * scale
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

    The softmax and all sums are computed in float32, matrix products in the dtype of the states.
    The chunk size changes the result only by rounding. Second derivatives are not supported.

    Args:
        states: [t, width]; t may be 0.
        matrix: [V, width].
        bias: [V].
        labels: int64 [t].
        weights: w, non-negative factors of the losses, [t].
        draws: uniform in [0, 1), [t]. If given, `samples` are drawn from p by inverse transform:
            the first v with p(0) + ... + p(v) > draw.
        terms: terms of the loss in addition to the cross-entropy.
        chunk_logits: maximum number of logits of a chunk; a chunk has at least one target.
        compiled: whether the operations on the logits of a chunk are compiled into fewer passes.
    """
    rest = labels, weights, draws, terms, chunk_logits, compiled
    if torch.is_grad_enabled():
        losses = _LinearCrossEntropy.apply(states, matrix, bias, *rest)  # type: ignore[no-untyped-call]
        return Losses(*losses)
    return _compute(states, matrix, bias, *rest, needed=(False, False, False))[0]


class VocabularyProjection(nn.Linear):
    """The projection to the vocabulary, and its losses without the full logits.

    It is a module, so that ZeRO-3, which gathers the parameters of modules, also gathers its
    matrix, which may be the word embedding.

    Args:
        config: the model's configuration: width, bias, and whether the matrix is that of `words`.
        words: the word embedding of the trunk.
        terms: terms of the loss in addition to the cross-entropy.
    """

    def __init__(self, config: ModelConfig, words: nn.Embedding, terms: LossConfig) -> None:
        super().__init__(config.hidden_size, words.num_embeddings, bias=config.bias)
        if config.tie_word_embeddings:
            self.weight = words.weight
        self.terms = terms
        self.compiled = False
        """Whether compiled code computes the losses."""

    def forward(
        self,
        states: Tensor,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        draws: Tensor | None = None,
    ) -> Any:
        """Return logits [t, vocabulary] of states [t, hidden], or `Losses` if there are labels.

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
