"""Steps that remember against the whole forward pass."""

import pytest
import torch
from torch import Tensor

from mynah.utility.albert.caption_memory import CachedDecoder
from mynah.utility.albert.captioning import AlbertForImageCaptioning

VIDEO, MASK, MAX_LENGTH = 6, 4, 5


def whole_forward(
    model: AlbertForImageCaptioning, words: Tensor, embedded: Tensor, video_valid: Tensor | None
) -> Tensor:
    """Scores of the next word, (B, num_beams, V), caption by caption."""
    ids = torch.cat([words, torch.full_like(words[:, :, :1], MASK)], 2)
    valid = torch.ones_like(ids[:, :1], dtype=torch.bool)
    beams = [model(ids[:, k : k + 1], valid, embedded, video_valid) for k in range(ids.shape[1])]
    return torch.cat(beams, 1)[:, :, -1]


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("table", [None, VIDEO])
@pytest.mark.parametrize("padded", [False, True])
@torch.no_grad()
def test_every_step_equals_the_whole_forward_pass(build_captioner, num_beams, table, padded):
    """With other beams gone on with after each step, and a clip forgotten on the way."""
    model = build_captioner(table)
    generator = torch.Generator().manual_seed(1)
    embedded = torch.randn(3, VIDEO, 16, generator=generator)
    video_valid = torch.arange(VIDEO) < torch.tensor([[4], [6], [1]]) if padded else None
    decoder = CachedDecoder(model, embedded, video_valid, num_beams, MAX_LENGTH, MASK)
    words = torch.full((3, num_beams, 1), 2)
    for step in range(MAX_LENGTH):
        expected = whole_forward(model, words, embedded, video_valid)
        torch.testing.assert_close(decoder.step(words), expected, atol=2e-5, rtol=1e-5)
        beams = torch.randint(num_beams, (len(words), num_beams), generator=generator)
        decoder.reorder(beams)
        words = words.gather(1, beams[:, :, None].expand_as(words))
        next_words = torch.randint(5, 19, (*words.shape[:2], 1), generator=generator)
        words = torch.cat([words, next_words], 2)
        if step == 2:
            clips = torch.tensor([2, 0])
            decoder.keep(clips)
            words, embedded = words[clips], embedded[clips]
            video_valid = None if video_valid is None else video_valid[clips]


@torch.no_grad()
def test_a_step_runs_two_positions_a_caption_and_scores_one(build_captioner):
    model = build_captioner(VIDEO)
    decoder = CachedDecoder(model, torch.randn(2, VIDEO, 16), None, 3, MAX_LENGTH, MASK)
    run, scored = [], []
    for layer in (layer for group in model.albert.encoder.groups for layer in group):
        layer.register_forward_hook(lambda module, arguments, output: run.append(tuple(output.shape[:2])))
    model.predictions.register_forward_hook(lambda module, arguments, output: scored.append(tuple(output.shape)))
    for length in (1, 2, 3):
        decoder.step(torch.full((2, 3, length), 7))
    assert set(run) == {(2, 2 * 3)}
    assert len(run) == 3 * 6
    assert scored == [(2, 3, 19)] * 3


@torch.no_grad()
def test_the_video_is_remembered_once_for_all_beams(build_captioner):
    model = build_captioner(VIDEO)
    decoder = CachedDecoder(model, torch.randn(2, VIDEO, 16), None, 3, MAX_LENGTH, MASK)
    assert len(decoder.memories) == 6  # layers passed, not layers owned
    for memory in decoder.memories:
        assert memory.keys.shape == memory.values.shape == (2, 2, VIDEO + 3 * (MAX_LENGTH + 1), 8)
