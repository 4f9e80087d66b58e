"""Parts of padded sequences, against torch.chunk and loops."""

import math

import pytest
import torch

from mynah.utility.nn.padding import equal_parts, pad_signals, regroup

LENGTHS = [1, 2, 3, 4, 5, 9, 10, 13, 29, 100]


@pytest.mark.parametrize("longest", [1, 2, 3, 4, 7, 50, 1000])
def test_parts_are_those_of_torch_chunk(longest):
    expected = []
    for length in LENGTHS:
        expected += [len(part) for part in torch.arange(length).chunk(math.ceil(length / longest))]
    parts = equal_parts(torch.tensor(LENGTHS), longest)
    assert parts.tolist() == expected
    assert parts.max() <= longest


def test_regrouping_lays_the_vectors_anew_and_back():
    lengths = torch.tensor([5, 2, 9])
    rows = [torch.randn(length, 3) for length in lengths]
    x = torch.full((3, 11, 3), float("nan"))  # what stands in padding is not to be seen
    for row, values in enumerate(rows):
        x[row, : len(values)] = values
    parts = equal_parts(lengths, 4)
    cut = regroup(x, lengths, parts)
    expected = [part for values in rows for part in values.chunk(math.ceil(len(values) / 4))]
    assert cut.shape == (len(expected), 3, 3)
    for row, values in zip(cut, expected, strict=True):
        assert torch.equal(row[: len(values)], values)
        assert (row[len(values) :] == 0).all()
    assert torch.equal(regroup(cut, parts, lengths), x[:, :9].nan_to_num(0.0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_signals_may_lie_on_the_gpu_already():
    signals = [torch.arange(3.0), torch.arange(2.0)]
    expected, _ = pad_signals(signals)
    padded, lengths = pad_signals([signal.cuda() for signal in signals], torch.device("cuda"))
    assert padded.cpu().tolist() == expected.tolist() and lengths.tolist() == [3, 2]
