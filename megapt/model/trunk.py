"""The Transformer trunk: embeddings and a stack of blocks. All objectives share it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional

from megapt.config import ModelConfig, Origins
from megapt.config.updates import Recompute
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
    """Return the normalization layer that the configuration asks for."""
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
    """Attention and feed-forward, each with a residual and a norm before it or after the sum."""

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
    """How a model is computed; no weight depends on it."""

    attention: type[Backend] = GroupedAttention
    recompute: Recompute = "none"
    recompute_every: int = 1
    sequence: SequenceGroup = field(default_factory=SequenceGroup)
    """The ranks that share the positions of each batch."""

    def prepare(self, batch: Batch) -> Prepared:
        """Return the attention of a batch, for every stack of blocks that reads it."""
        return prepare_attention(batch, self.attention, self.sequence)


class Blocks(nn.ModuleList):
    """A stack of blocks on the positions of this rank.

    Args:
        config: of the blocks.
        how: they are computed.
    """

    def __init__(self, config: ModelConfig, how: Computation) -> None:
        super().__init__(Block(config) for _ in range(config.num_layers))
        self.config, self.how = config, how
        self.recomputation = Recomputation(
            how.recompute, how.recompute_every, dropout=config.dropout > 0
        )

    def forward(self, x: Tensor, batch: Batch, prepared: Prepared | None = None) -> Tensor:
        """Return [n, hidden] from x [n, hidden], n the positions of this rank.

        Args:
            x: states of this rank.
            batch: that they belong to.
            prepared: attention of the batch, if another stack reads it too.
        """
        if prepared is None:
            prepared = self.how.prepare(batch)
        plan = plan_attention(batch, self.config, prepared, self.how.sequence)
        for number, block in enumerate(self):
            x = self.recomputation.run(number, block, x, plan)
        return x


class Transformer(nn.Module):
    """The trunk: tokens in, hidden states out.

    Args:
        config: of the model.
        vocabulary: number of token ids.
        max_positions: position ids are below this: W and the places of special tokens, also for
            objectives whose examples take more positions in all.
        how: it is computed.

    Raises:
        ConfigError: if attention computed so cannot do what the model asks for.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary: int,
        max_positions: int,
        how: Computation = Computation(),
    ) -> None:
        super().__init__()
        check_dropout(how.attention, config, Origins())
        self.config = config
        self.sequence = how.sequence
        self.embeddings = Embeddings(config, vocabulary, max_positions)
        # Post-norm stacks normalize the embeddings, as BERT does; pre-norm ones the last state.
        self.embedding_norm = make_norm(config) if config.norm_position == "post" else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = Blocks(config, how)
        self.final_norm = make_norm(config) if config.norm_position == "pre" else None

    def embed(self, batch: Batch) -> Tensor:
        """Return what the first block reads at the positions of this rank, [n, hidden]."""
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
