"""Pooling over time, against a loop over single utterances and closed forms."""

import math

import pytest
import torch

from mynah.utility.nn.pooling import (
    VARIANCE_FLOOR,
    AttentivePooling,
    AttentiveStatisticsPooling,
    MeanPooling,
    StatisticsPooling,
)

SIZE = 6
LENGTHS = torch.tensor([7, 1, 4])
POOLINGS = [MeanPooling, AttentivePooling, StatisticsPooling, AttentiveStatisticsPooling]


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(3, 9, SIZE, generator=torch.Generator().manual_seed(0)) * 3 + 5


def build(pooling: type) -> torch.nn.Module:
    torch.manual_seed(1)
    return pooling(SIZE)


@torch.no_grad()
def one_by_one(pool: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """Every utterance alone, position after position, in double precision."""
    rows = []
    for utterance, length in zip(features.double(), LENGTHS.tolist(), strict=True):
        weights = [1 / length] * length
        if hasattr(pool, "attention"):
            matrix, bias = pool.attention.hidden.weight.double(), pool.attention.hidden.bias.double()
            vector = pool.attention.score.weight.double()[0]
            scores = [math.exp(float(vector @ torch.tanh(matrix @ utterance[n] + bias))) for n in range(length)]
            weights = [score / sum(scores) for score in scores]
        mean = sum(weight * utterance[n] for n, weight in enumerate(weights))
        parts = [mean]
        if pool.out_size == 2 * SIZE:
            variance = sum(weight * (utterance[n] - mean) ** 2 for n, weight in enumerate(weights))
            parts.append(variance.clamp(min=VARIANCE_FLOOR).sqrt())
        rows.append(torch.cat(parts))
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_equals_a_loop_over_the_valid_positions_of_each_utterance(pooling, features):
    pool = build(pooling)
    pooled = pool(features, LENGTHS)
    assert pooled.shape == (3, pool.out_size)
    torch.testing.assert_close(pooled.double(), one_by_one(pool, features), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("padding", [1e6, float("inf"), float("nan")])
def test_content_of_padding_does_not_change_the_pooled_vector(pooling, padding, features):
    pool = build(pooling)
    spoiled = features.clone()
    for row, length in enumerate(LENGTHS.tolist()):
        spoiled[row, length:] = padding
    assert torch.equal(pool(spoiled, LENGTHS), pool(features, LENGTHS))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_amount_of_padding_does_not_change_the_pooled_vector(pooling, features):
    pool = build(pooling)
    alone = torch.cat([pool(features[row : row + 1, :n], LENGTHS[row : row + 1]) for row, n in enumerate(LENGTHS)])
    torch.testing.assert_close(pool(features, LENGTHS), alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_are_finite_and_zero_at_padding(pooling, features):
    features = features.clone().requires_grad_()
    build(pooling)(features, LENGTHS).square().sum().backward()
    assert features.grad.isfinite().all()  # the utterance of one position has no deviation
    for row, length in enumerate(LENGTHS.tolist()):
        assert features.grad[row, :length].abs().sum() > 0
        assert features.grad[row, length:].abs().sum() == 0


def test_attention_prefers_what_it_was_taught_to():
    pool = AttentivePooling(2)
    with torch.no_grad():
        pool.attention.hidden.weight.copy_(torch.eye(2))
        pool.attention.hidden.bias.zero_()
        pool.attention.score.weight.copy_(torch.tensor([[50.0, 0.0]]))
    x = torch.tensor([[[2.0, 7.0], [-2.0, 9.0], [-2.0, 11.0]]])
    torch.testing.assert_close(pool(x, torch.tensor([3])), torch.tensor([[2.0, 7.0]]))


def test_deviation_keeps_its_digits_beside_a_large_mean():
    x = (torch.randn(1, 50, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e4).float()
    deviation = StatisticsPooling(1)(x, torch.tensor([50]))[0, 1]
    expected = x.double().std(unbiased=False)
    assert abs(float(deviation) - float(expected)) < 1e-3
