from __future__ import annotations

import math

import pytest
import torch

from megapt.config import ModelConfig
from megapt.model.embeddings import Embeddings, rotary_angles, rotate, sinusoids
from tests.model.builders import MODERN


@pytest.mark.parametrize("width", [2, 16, 17])
def test_sinusoids_are_the_published_formula(width: int) -> None:
    positions = torch.tensor([0, 1, 2, 100, 4000])
    table = sinusoids(positions, width)
    assert table.shape == (5, width)
    for row, p in zip(table, positions.tolist(), strict=True):
        for column in range(width):
            angle = p / 10000 ** (2 * (column // 2) / width)
            expected = math.cos(angle) if column % 2 else math.sin(angle)
            assert row[column] == pytest.approx(expected, abs=1e-3 if p > 100 else 1e-5)


def turned(vector: torch.Tensor, position: int, base: float = 10000.0) -> torch.Tensor:
    angles = rotary_angles(torch.tensor([position]), vector.shape[-1], base)
    return rotate(vector[None, None], *angles)[0, 0]


@pytest.mark.parametrize("base", [100.0, 10000.0, 500000.0])
def test_rotary_scores_depend_on_the_distance_alone(base: float) -> None:
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 8, generator=generator)
    for distance in (0, 1, 7, 30):
        scores = [
            torch.dot(turned(q, p + distance, base), turned(k, p, base)) for p in (0, 3, 50, 200)
        ]
        torch.testing.assert_close(torch.stack(scores), scores[0].expand(4), atol=1e-3, rtol=0)


def test_rotary_scores_differ_between_distances() -> None:
    q = torch.randn(8, generator=torch.Generator().manual_seed(1))
    scores = [float(torch.dot(turned(q, distance), q)) for distance in range(6)]
    assert len({round(score, 3) for score in scores}) == 6
    assert scores[0] == pytest.approx(float(q.square().sum()), rel=1e-5)


def test_rotation_turns_each_pair_by_its_own_rate_and_keeps_lengths() -> None:
    vector = torch.arange(1.0, 9.0)
    rotated = turned(vector, 5)
    for i in range(4):
        angle = 5 * 10000 ** (-2 * i / 8)
        x, y = vector[i].item(), vector[i + 4].item()
        left, right = rotated[i], rotated[i + 4]
        assert left == pytest.approx(x * math.cos(angle) - y * math.sin(angle), abs=1e-4)
        assert right == pytest.approx(y * math.cos(angle) + x * math.sin(angle), abs=1e-4)
    assert rotated.norm() == pytest.approx(vector.norm().item(), rel=1e-5)


def test_position_0_is_not_turned() -> None:
    vector = torch.arange(1.0, 9.0)
    assert torch.equal(turned(vector, 0), vector)


def test_far_positions_stay_apart_in_bfloat16() -> None:
    """bfloat16 has no number between 4096 and 4128: positions must never be rounded to it."""
    vector = torch.ones(8, dtype=torch.bfloat16)
    assert turned(vector, 4097).dtype == torch.bfloat16
    assert not torch.equal(turned(vector, 4097), turned(vector, 4098))
    config = ModelConfig(**{**MODERN, "positions": "sinusoidal"})
    embeddings = Embeddings(config, 10, 8).to(torch.bfloat16)
    zeros = torch.zeros(2, dtype=torch.int64)
    first, second = embeddings(zeros, torch.tensor([4097, 4098]), zeros)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_embeddings_are_a_sum(positions: str) -> None:
    config = ModelConfig(**{**MODERN, "positions": positions})
    embeddings = Embeddings(config, 10, 8)
    tokens, places, segments = torch.tensor([3]), torch.tensor([5]), torch.tensor([1])
    assert embeddings.segments is not None
    expected = embeddings.words.weight[3] + embeddings.segments.weight[1]
    if positions == "learned":
        assert embeddings.positions is not None
        expected = expected + embeddings.positions.weight[5]
    if positions == "sinusoidal":
        expected = expected + 3 * embeddings.words.weight[3] + sinusoids(places, 16)[0]
    torch.testing.assert_close(embeddings(tokens, places, segments)[0], expected)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
def test_without_segments_there_is_no_table_and_their_ids_change_nothing(positions: str) -> None:
    config = ModelConfig(**{**MODERN, "positions": positions, "num_segments": 0})
    embeddings = Embeddings(config, 10, 8)
    assert not [name for name in embeddings.state_dict() if "segments" in name]
    tokens = torch.tensor([3, 7, 7, 9])
    first, second = (
        embeddings(tokens, torch.arange(4), torch.tensor([0, i, i, 5])) for i in (0, 1)
    )
    assert torch.equal(first, second)


def test_only_learned_positions_have_a_table() -> None:
    for positions in ("sinusoidal", "rotary"):
        config = ModelConfig(**{**MODERN, "positions": positions})
        assert Embeddings(config, 10, 8).positions is None
