"""ELECTRA's generator: a small Transformer that fills masks with plausible tokens."""

from __future__ import annotations

from torch import Tensor, nn

from megapt.config import LossConfig, ModelConfig
from megapt.data import Batch
from megapt.errors import ConfigError
from megapt.model.attention import Prepared
from megapt.model.heads import TokenHead
from megapt.model.linear_cross_entropy import Losses
from megapt.model.trunk import Blocks, Computation, make_norm


def generator_config(config: ModelConfig, scale: float) -> ModelConfig:
    """Return the configuration of a generator whose width is a fraction of the model's.

    The generator has as many layers as the model. Its number of heads is the model's times `scale`,
    rounded, and at least one; its heads are as wide as the model's. A single head may be narrower:
    its width is the model's hidden size times `scale`, rounded to an even number for rotary
    positions.

    Args:
        config: the model's configuration.
        scale: fraction of the model's width.
    """
    width = config.hidden_size // config.num_heads
    heads = max(round(config.num_heads * scale), 1)
    if heads == 1:
        width = min(width, max(2 * round(config.hidden_size * scale / 2), 2))
    hidden = heads * width
    inner = max(round(config.intermediate_size * hidden / config.hidden_size), 1)
    return config.model_copy(
        update={"hidden_size": hidden, "num_heads": heads, "intermediate_size": inner}
    )


class Generator(nn.Module):
    """Predicts tokens from the trunk's own embeddings of the text (Clark et al. 2020, section 3.2).

    All embeddings are shared, including those of positions and segments. A dense layer projects
    them to the generator's width, and a transform projects the generator's states back to the width
    of the word embedding, which is also the output matrix if the model is tied.

    Args:
        config: the model's configuration.
        words: the word embedding of the trunk.
        terms: terms of its loss in addition to the cross-entropy.
        scale: see `generator_config`.
        computation: how it is computed.

    Raises:
        ConfigError: if its number of heads is not divisible by the number of ranks that share
            positions.
    """

    def __init__(
        self,
        config: ModelConfig,
        words: nn.Embedding,
        terms: LossConfig,
        scale: float,
        computation: Computation,
    ) -> None:
        super().__init__()
        self.config = generator_config(config, scale)
        if self.config.num_heads % computation.sequence.size:
            raise ConfigError(
                f"parallel.sequence_parallel_size: {computation.sequence.size} ranks do not divide "
                f"the generator's {self.config.num_heads} head(s); make the generator larger, or "
                f"give the model more heads"
            )
        self.sequence = computation.sequence
        self.dense = nn.Linear(config.hidden_size, self.config.hidden_size, bias=config.bias)
        self.blocks = Blocks(self.config, computation)
        self.final_norm = make_norm(self.config) if config.norm_position == "pre" else None
        self.head = TokenHead(config, words, terms, self.config.hidden_size)

    def states(self, embedded: Tensor, batch: Batch, prepared: Prepared | None = None) -> Tensor:
        """Return states [N, generator's width] from the trunk's embeddings [n, hidden].

        See `Blocks` for `prepared`.
        """
        x = self.blocks(self.dense(embedded), batch, prepared)
        if self.final_norm is not None:
            x = self.final_norm(x)
        return self.sequence.join(x, len(batch.tokens))

    def logits(self, embedded: Tensor, batch: Batch, places: Tensor) -> Tensor:
        """Return logits [t, vocabulary] at `places`, int64 [t]."""
        return self.head.logits(self.states(embedded, batch), batch, places)

    def forward(
        self,
        embedded: Tensor,
        batch: Batch,
        prepared: Prepared,
        places: Tensor,
        labels: Tensor,
        weights: Tensor,
        draws: Tensor,
    ) -> Losses:
        """Return the losses of labels int64 [t], and a sampled token for each.

        Any token of the vocabulary may be sampled, including special tokens, as in the paper: p_G
        is the whole softmax. The samples depend only on the text, the model's weights and the
        draws, except for draws within rounding error of the border between two tokens.
        """
        losses: Losses = self.head(
            self.states(embedded, batch, prepared), batch, places, labels, weights, draws
        )
        return losses
