"""Loudness, against its definition in double precision."""

import pytest
import torch

from mynah.utility.audio.level import scale_to_level


@pytest.mark.parametrize("level", [-25.0, -3.0, 0.0])
def test_each_waveform_has_the_level_asked_for(level):
    lengths = torch.tensor([1000, 600, 300])
    wavs = torch.randn(3, 1000) * torch.tensor([[1e-3], [0.1], [10.0]])
    wavs.masked_fill_(torch.arange(1000) >= lengths[:, None], 0.0)
    scaled = scale_to_level(wavs, lengths, level)
    for wav, length in zip(scaled.double(), lengths, strict=True):
        rms = wav[:length].square().mean().sqrt()
        assert 20 * rms.log10().item() == pytest.approx(level, abs=1e-4)
        assert (wav[length:] == 0).all()
    shape = (scaled / wavs)[1, :600]
    torch.testing.assert_close(shape, shape[:1].expand(600))


def test_silence_stays_silence_and_has_a_gradient():
    wavs = torch.zeros(1, 100, requires_grad=True)
    scaled = scale_to_level(wavs, torch.tensor([100]), -25.0)
    assert (scaled == 0).all()
    scaled.sum().backward()
    assert wavs.grad.isfinite().all()
