"""The Transformer trunk: embeddings and a stack of blocks. All objectives share it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional

from megapt.config import ModelConfig, Origins
from megapt.config.training import Recompute
from megapt.data import Batch
from megapt.model.attention import (
    Attention,
    AttentionPlan,
    Backend,
    GroupedAttention,
    Prepared,
    check_dropout,
    plan_attention,
    prepare_attention,
)
from megapt.model.embeddings import Embeddings
from megapt.model.layout import feedforward_blocks
from megapt.model.recompute import Recomputation
from megapt.model.sequence import SequenceGroup


def make_norm(config: ModelConfig) -> nn.Module:
    """Return the normalization layer that the configuration specifies."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.bias)


class FeedForward(nn.Module):
    """Position-wise feed-forward layer: ReLU, GELU, or SwiGLU (Shazeer 2020)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.blocks = feedforward_blocks(config)
        inner = config.intermediate_size * (2 if config.activation == "swiglu" else 1)
        self.up = nn.Linear(config.hidden_size, inner, bias=config.bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, hidden] from [N, hidden]."""
        inner = self.up(x)
        if self.activation == "swiglu":
            gate, value = inner.view(len(x), self.blocks, 2, -1).unbind(dim=2)
            inner = (functional.silu(gate) * value).flatten(1)
        elif self.activation == "gelu":
            inner = functional.gelu(inner)
        else:
            inner = functional.relu(inner)
        out: Tensor = self.down(inner)
        return out


class Block(nn.Module):
    """Attention and feed-forward, each with a residual connection and pre-norm or post-norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre = config.norm_position == "pre"
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.feedforward_norm = make_norm(config)
        self.feedforward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, plan: AttentionPlan) -> Tensor:
        """Return [N, hidden] from x [N, hidden]."""
        if self.pre:
            x = x + self.dropout(self.attention(self.attention_norm(x), plan))
            after: Tensor = x + self.dropout(self.feedforward(self.feedforward_norm(x)))
            return after
        x = self.attention_norm(x + self.dropout(self.attention(x, plan)))
        out: Tensor = self.feedforward_norm(x + self.dropout(self.feedforward(x)))
        return out


@dataclass(frozen=True)
class Computation:
    """How a model is computed; the weights do not depend on it."""

    attention: type[Backend] = GroupedAttention
    recompute: Recompute = "none"
    recompute_every: int = 1
    sequence: SequenceGroup = field(default_factory=SequenceGroup)
    """The ranks that share the positions of each batch."""

    def prepare(self, batch: Batch) -> Prepared:
        """Return the prepared attention of a batch; all stacks that read the batch share it."""
        return prepare_attention(batch, self.attention, self.sequence)


class Blocks(nn.ModuleList):
    """A stack of blocks on the positions of this rank.

    Args:
        config: the blocks' configuration.
        computation: how they are computed.
    """

    def __init__(self, config: ModelConfig, computation: Computation) -> None:
        super().__init__(Block(config) for _ in range(config.num_layers))
        self.config, self.computation = config, computation
        self.recomputation = Recomputation(
            computation.recompute, computation.recompute_every, dropout=config.dropout > 0
        )

    def forward(self, x: Tensor, batch: Batch, prepared: Prepared | None = None) -> Tensor:
        """Return states [n, hidden] of the n positions of this rank.

        Args:
            x: states of this rank, [n, hidden].
            batch: the batch of these states.
            prepared: prepared attention of the batch, if another stack reads the batch too.
        """
        if prepared is None:
            prepared = self.computation.prepare(batch)
        plan = plan_attention(batch, self.config, prepared, self.computation.sequence)
        for number, block in enumerate(self):
            x = self.recomputation.run(number, block, x, plan)
        return x


class Transformer(nn.Module):
    """The trunk: tokens in, hidden states out.

    Args:
        config: the model's configuration.
        vocabulary: number of token ids.
        max_positions: limit of the position ids, exclusive: the window and the places of special
            tokens, also for objectives whose examples have more positions in total.
        computation: how it is computed.

    Raises:
        ConfigError: if the attention backend does not support the model.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: int,
        max_positions: int,
        computation: Computation = Computation(),
    ) -> None:
        super().__init__()
        check_dropout(computation.attention, config, Origins())
        self.config = config
        self.sequence = computation.sequence
        self.embeddings = Embeddings(config, vocabulary, max_positions)
        # Post-norm stacks normalize the embeddings, as BERT does; pre-norm stacks the last state.
        self.embedding_norm = make_norm(config) if config.norm_position == "post" else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = Blocks(config, computation)
        self.final_norm = make_norm(config) if config.norm_position == "pre" else None

    def embed(self, batch: Batch) -> Tensor:
        """Return the input of the first block at the positions of this rank, [n, hidden]."""
        mine = map(self.sequence.slice, (batch.tokens, batch.positions, batch.segments))
        x: Tensor = self.embeddings(*mine)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        embedded: Tensor = self.dropout(x)
        return embedded

    def forward(self, batch: Batch, prepared: Prepared | None = None) -> Tensor:
        """Return the hidden states of all positions, [N, hidden]; see `Blocks` for `prepared`."""
        x = self.blocks(self.embed(batch), batch, prepared)
        if self.final_norm is not None:
            x = self.final_norm(x)
        return self.sequence.join(x, len(batch.tokens))
