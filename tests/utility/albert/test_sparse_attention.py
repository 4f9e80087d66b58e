"""Learned sparse attention against its formulas, entry by entry in double precision."""

import math

import pytest
import torch

from mynah.utility.albert.sparse_attention import LearnedSparseAttention

SIZE = 12


def build(hard: bool = False, size: int = SIZE) -> LearnedSparseAttention:
    torch.manual_seed(0)
    return LearnedSparseAttention(size, hard)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_table_starts_from_the_normal_distribution():
    table = build(size=200).table.detach()
    assert abs(float(table.mean())) < 0.02
    assert abs(float(table.std()) - 1) < 0.02


@pytest.mark.parametrize("hard", [False, True])
@torch.no_grad()
def test_probabilities_bias_and_sparsity_equal_their_formulas(hard):
    attention = build(hard)
    attention.table[0, 1] = 12.0  # nearly open: 1 - sigmoid has few digits in float32
    total = 0.0
    probabilities, bias = attention.probabilities(), attention.bias()
    assert probabilities.shape == bias.shape == (SIZE, SIZE)
    for row in range(SIZE):
        for column in range(SIZE):
            openness = sigmoid(float(attention.table.detach()[row, column]))
            total += openness if row != column else 0.0
            openness = float(openness >= 0.5) if hard else openness
            openness = 1.0 if row == column else openness
            assert float(probabilities[row, column]) == pytest.approx(openness, abs=1e-6)
            assert float(bias[row, column]) == pytest.approx((1 - openness) * -10000, rel=1e-5, abs=1e-6)
    assert float(attention.sparsity()) == pytest.approx(total / SIZE**2, rel=1e-5)


def test_the_log_form_multiplies_attention_weights_by_the_openness():
    attention = build()
    attention.form = "log"
    scores = torch.randn(SIZE, SIZE)
    weights = (scores + attention.bias()).softmax(-1)
    for row in range(SIZE):
        terms = [
            math.exp(float(scores[row, column]))
            * (1.0 if row == column else sigmoid(float(attention.table.detach()[row, column])))
            for column in range(SIZE)
        ]
        expected = torch.tensor([term / sum(terms) for term in terms])
        torch.testing.assert_close(weights[row], expected, atol=1e-5, rtol=0)
    (weights @ torch.randn(SIZE, 4)).square().sum().backward()
    off_diagonal = attention.table.grad[~torch.eye(SIZE, dtype=torch.bool)]
    assert off_diagonal.abs().min() > 1e-6
    assert torch.all(attention.table.grad.diagonal() == 0)
    hard = LearnedSparseAttention(SIZE, hard=True, form="log")
    closed = hard.probabilities() == 0
    assert torch.all(hard.bias()[closed] == -10000) and torch.all(hard.bias()[~closed] == 0)


def test_gradient_of_sparsity_closes_all_but_the_diagonal():
    attention = build()
    attention.sparsity().backward()
    expected = torch.sigmoid(attention.table) * (1 - torch.sigmoid(attention.table)) / SIZE**2
    torch.testing.assert_close(attention.table.grad, expected.detach().fill_diagonal_(0.0))


@pytest.mark.parametrize(("frames_to", "copies"), [(9, 3), (7, 2), (2, 0)])
@torch.no_grad()
def test_blocks_repeat_the_table_along_the_diagonal(frames_to, copies):
    attention = build()
    size = SIZE // 3 * frames_to
    resized = attention.resized(size, 3, frames_to)
    assert resized.table.shape == (size, size)
    assert resized.table.requires_grad
    for copy in range(copies):
        block = slice(copy * SIZE, (copy + 1) * SIZE)
        assert torch.equal(resized.table[block, block], attention.table)
    rest = size - copies * SIZE
    assert torch.equal(resized.table[size - rest :, size - rest :], attention.table[:rest, :rest])
    if copies:
        off = resized.table[: copies * SIZE, copies * SIZE :]
        assert off.numel() == 0 or float(off.std()) > 0.5  # drawn anew


@pytest.mark.parametrize("frames_to", [5, 2])
@torch.no_grad()
def test_interpolation_is_linear_over_the_two_times_of_each_pair_of_places(frames_to):
    attention = build()
    resized = attention.resized(4 * frames_to, 3, frames_to, how="interpolate").table

    def neighbors(index: int) -> tuple[int, int, float]:
        """The old times that a new one, both taken in the middle of their frames, lies between."""
        time = min(max((index + 0.5) * 3 / frames_to - 0.5, 0.0), 2.0)
        return int(time), min(int(time) + 1, 2), time - int(time)

    for row in range(4 * frames_to):
        for column in range(4 * frames_to):
            first, second, share = neighbors(row // 4)
            third, fourth, other = neighbors(column // 4)
            expected = sum(
                weight * float(attention.table[4 * i + row % 4, 4 * j + column % 4])
                for i, j, weight in (
                    (first, third, (1 - share) * (1 - other)),
                    (first, fourth, (1 - share) * other),
                    (second, third, share * (1 - other)),
                    (second, fourth, share * other),
                )
            )
            assert float(resized[row, column]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("how", ["block", "interpolate"])
@torch.no_grad()
def test_the_same_number_of_frames_keeps_the_table(how):
    attention = build(hard=True)
    resized = attention.resized(SIZE, 3, 3, how)
    torch.testing.assert_close(resized.table, attention.table)
    assert resized.hard


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((24, 3, 6, "copy"), "'copy' is not one of block, interpolate"),
        ((24, 5, 10, "block"), "12 positions are not a whole number of places in 5"),
        ((25, 3, 6, "block"), "become 24 of 6, not 25"),
        ((0, 3, 0, "block"), "not a whole number"),
    ],
)
def test_sizes_that_do_not_belong_together_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build().resized(*arguments)
