"""What is looked at when a word is said, against the attention of that step alone."""

import torch

from mynah.utility.albert.word_attention import word_attention

CAPTIONS = [[7, 5, 9], [], [12]]


@torch.no_grad()
def test_attention_of_a_word_is_that_of_its_mask_when_it_was_said(build_captioner, vocabulary):
    model = build_captioner(6)
    embedded = torch.randn(3, 6, 16, generator=torch.Generator().manual_seed(1))
    video_valid = torch.arange(6) < torch.tensor([[6], [3], [4]])
    attention = word_attention(model, embedded, video_valid, CAPTIONS, vocabulary)
    assert [tuple(of_clip.shape) for of_clip in attention] == [(3, 6), (0, 6), (1, 6)]
    for clip, caption in enumerate(CAPTIONS):
        for place in range(len(caption)):
            ids = torch.tensor([[[vocabulary.cls_id, *caption[:place], vocabulary.mask_id]]])
            valid, one = torch.ones_like(ids, dtype=torch.bool), slice(clip, clip + 1)
            maps = model.video_attention(ids, valid, embedded[one], video_valid[one])
            expected = maps.mean(0)[0, 0, -1]
            torch.testing.assert_close(attention[clip][place], expected / expected.sum(), atol=1e-5, rtol=1e-5)
        assert torch.all(attention[clip][:, ~video_valid[clip]] == 0)


def test_nothing_said_is_nothing_looked_at(build_captioner, vocabulary):
    (attention,) = word_attention(build_captioner(), torch.randn(1, 6, 16), None, [[]], vocabulary)
    assert attention.shape == (0, 6)
