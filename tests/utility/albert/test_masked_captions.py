"""What is masked of captions: counts by the formula, chances by counting."""

import pytest
import torch
from torch import Tensor

from mynah.utility.albert.masked_captions import CaptionMaskingConfig, mask_captions, pad_captions
from mynah.utility.configuration.problems import validate

CLIPS, CAPTIONS, LENGTH = 50, 4, 60


@pytest.fixture
def captions() -> tuple[Tensor, Tensor]:
    """(CLIPS, CAPTIONS, LENGTH) ids and validity, lengths 0 to LENGTH; [CLS] words [SEP]."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.arange(CLIPS * CAPTIONS).view(CLIPS, CAPTIONS) % (LENGTH + 1)
    ids = torch.randint(5, 19, (CLIPS, CAPTIONS, LENGTH), generator=generator)
    place = torch.arange(LENGTH)
    ids = ids.masked_fill(place == 0, 2).masked_fill(place == lengths[..., None] - 1, 3)
    valid = place < lengths[..., None]
    return ids.masked_fill(~valid, 0), valid


@pytest.mark.parametrize(("proportion", "most"), [(0.5, 45), (0.15, 4), (1.0, 45), (0.01, 45)])
def test_number_of_masked_pieces_is_that_of_the_formula(captions, vocabulary, proportion, most):
    ids, valid = captions
    config = CaptionMaskingConfig(mask_proportion=proportion, max_masked=most)
    masked = mask_captions(ids, valid, config, vocabulary)
    for length, count in zip(
        valid.sum(-1).flatten().tolist(), masked.targets.sum(-1).flatten().tolist(), strict=True
    ):
        expected = min(max(round(proportion * length), 1), most, max(length - 1, 0))
        assert count == expected, length


def test_first_pieces_and_padding_are_never_masked_and_ends_are(captions, vocabulary):
    ids, valid = captions
    masked = mask_captions(ids, valid, CaptionMaskingConfig(), vocabulary)
    assert not masked.targets[..., 0].any()
    assert not (masked.targets & ~valid).any()
    assert torch.equal(masked.inputs[~masked.targets], ids[~masked.targets])
    assert (masked.targets & (ids == vocabulary.sep_id)).any()


def test_every_position_is_as_likely(vocabulary):
    ids = torch.randint(5, 19, (20000, 11))
    torch.manual_seed(0)
    masked = mask_captions(ids, torch.ones_like(ids, dtype=torch.bool), CaptionMaskingConfig(), vocabulary)
    shares = masked.targets[:, 1:].float().mean(0)  # 6 of 10: round(5.5) is 6
    torch.testing.assert_close(shares, torch.full((10,), 0.6), atol=0.02, rtol=0)


@pytest.mark.parametrize(("mask", "replace"), [(0.8, 0.1), (0.3, 0.6), (1.0, 0.0), (0.0, 0.0)])
def test_what_stands_in_the_place_of_masked_pieces(vocabulary, mask, replace):
    torch.manual_seed(0)
    ids = torch.full((4000, 20), 7)
    config = CaptionMaskingConfig(mask_token_probability=mask, random_token_probability=replace)
    masked = mask_captions(ids, torch.ones_like(ids, dtype=torch.bool), config, vocabulary)
    shown = masked.inputs[masked.targets]
    counts = torch.bincount(shown, minlength=19) / len(shown)
    expected = torch.full((19,), replace / 19)
    expected[vocabulary.mask_id] += mask
    expected[7] += 1 - mask - replace
    torch.testing.assert_close(counts, expected, atol=0.01, rtol=0)


def test_the_same_random_numbers_mask_the_same(captions, vocabulary):
    ids, valid = captions

    def draw(generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        masked = mask_captions(ids, valid, CaptionMaskingConfig(), vocabulary, generator)
        return masked.inputs, masked.targets

    once, again = (draw(torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(once, again, strict=True))
    assert not torch.equal(draw(torch.Generator().manual_seed(2))[1], once[1])
    torch.manual_seed(1)
    assert torch.equal(draw(None)[1], once[1])


def test_captions_are_padded_to_the_longest_and_to_the_most():
    ids, valid = pad_captions([[[2, 7, 3], [2, 3]], [[2, 8, 9, 3]]], pad_id=1)
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[[2, 7, 3, 1], [2, 3, 1, 1]], [[2, 8, 9, 3], [1, 1, 1, 1]]]
    assert valid.sum(-1).tolist() == [[3, 2], [4, 0]]
    assert torch.equal(valid, ids != 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mask_proportion", 0.0),
        ("max_masked", 0),
        ("mask_token_probability", -0.1),
        ("random_token_probability", 0.3),
        ("max_length", 2),
    ],
)
def test_impossible_masking_is_named(field, value):
    assert not validate(CaptionMaskingConfig, {})[1]
    assert [key for key, _ in validate(CaptionMaskingConfig, {field: value})[1]] == [field]
