"""Word, position and segment embeddings."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from megapt.config import ModelConfig


def _rates(width: int, base: float, device: torch.device) -> Tensor:
    """Return base^(-2i/width) for i < width/2, float32 [width/2].

    Computed at each use: a stored buffer would be cast to bfloat16 with the model, and bfloat16
    cannot distinguish distant positions.
    """
    return base ** (-torch.arange(0, width, 2, device=device).float() / width)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Return the fixed embedding of Vaswani et al. 2017, section 3.5, float32 [..., width].

    PE(p, 2i) = sin(p / 10000^(2i/width)), PE(p, 2i+1) = cos of the same angle.
    """
    angles = positions[..., None].float() * _rates(width, 10000.0, positions.device)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]


def rotary_angles(positions: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary embedding (Su et al. 2021, RoFormer).

    Args:
        positions: int64 [N].
        width: width of one head, even.
        base: base of the geometric sequence of rates.

    Returns:
        Two float32 [N, 1, width]; the angle of pair i is at indices i and i + width/2.
    """
    angles = positions[:, None, None].float() * _rates(width, base, positions.device)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings.

    Rotary positions are applied in the attention instead; see `rotary_angles`. If
    `ModelConfig.num_segments` is 0, there is no segment table, and segment ids have no effect.

    Args:
        config: the model's configuration.
        vocabulary: number of rows of the word table.
        max_positions: number of rows of the position table.
    """

    def __init__(self, config: ModelConfig, vocabulary: int, max_positions: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, config.hidden_size)
        self.segments = (
            nn.Embedding(config.num_segments, config.hidden_size) if config.num_segments else None
        )
        self.positions = (
            nn.Embedding(max_positions, config.hidden_size)
            if config.positions == "learned"
            else None
        )
        self.sinusoidal = config.positions == "sinusoidal"

    def forward(self, tokens: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """Return embeddings [N, hidden] of three int64 [N]."""
        words: Tensor = self.words(tokens)
        width = words.shape[-1]
        if self.sinusoidal:
            # Without this scale the sinusoids, of magnitude 1, would dominate the words (Vaswani
            # et al. 2017, section 3.4).
            words = words * math.sqrt(width) + sinusoids(positions, width).to(words.dtype)
        total = words
        if self.segments is not None:
            total = total + self.segments(segments)
        if self.positions is not None:
            total = total + self.positions(positions)
        return total


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + width/2) of x, [N, heads, width], by their angles.

    Computed in float32: bfloat16 angles cannot distinguish distant positions.
    """
    left, right = x.float().chunk(2, dim=-1)
    rotated = torch.cat([-right, left], dim=-1)
    return (x.float() * cos + rotated * sin).to(x.dtype)
