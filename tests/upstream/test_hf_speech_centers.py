"""hf_speech's first_center and stride against the samples that reach a position, found by gradients and bursts."""

import numpy as np
import pytest
import torch

from mynah.upstream.hf_speech.model import FAMILIES

transformers = pytest.importorskip("transformers")

STRIDE = 320
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def model_of(kind: str, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **settings)).eval()


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_what_reaches_a_position_of_the_convolutions_lies_around_its_center(kind):
    model = model_of(kind, **SMALL, conv_dim=[8] * 7, feat_extract_norm="layer", num_conv_pos_embedding_groups=2)
    encoder = FAMILIES[kind](model, transformers.Wav2Vec2FeatureExtractor())
    wav = torch.randn(1, 4000, requires_grad=True)
    features = model.feature_extractor(wav)
    for position in (0, 3, 7):
        [gradient] = torch.autograd.grad(features[0, :, position].square().sum(), wav, retain_graph=True)
        reached = gradient[0].nonzero().flatten()
        assert (int(reached.min()) + int(reached.max())) / 2 == encoder.first_center + STRIDE * position


def test_a_burst_at_a_center_is_loudest_in_that_pair_of_frames():
    extractor = transformers.SeamlessM4TFeatureExtractor()
    encoder = FAMILIES["wav2vec2-bert"](model_of("wav2vec2-bert", **SMALL), extractor)
    for position in (0, 3, 7):
        wav = 1e-4 * np.random.default_rng(0).standard_normal(6000).astype(np.float32)
        middle = int(encoder.first_center) + STRIDE * position
        wav[middle - 20 : middle + 20] += 0.5
        features = extractor(wav, sampling_rate=16000, return_tensors="np")["input_features"][0]
        assert int(features.mean(1).argmax()) == position


def test_whispers_positions_lie_on_every_second_frame_and_those_around_multiples_of_160():
    settings = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    settings |= {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16, "max_source_positions": 50}
    model = model_of("whisper", **settings, vocab_size=10, pad_token_id=0, bos_token_id=1, eos_token_id=2).encoder
    extractor = transformers.WhisperFeatureExtractor(chunk_length=1)
    encoder = FAMILIES["whisper"](model, extractor)
    mel = torch.randn(1, 80, 100, requires_grad=True)
    states = model.conv2(torch.nn.functional.gelu(model.conv1(mel)))
    for position in (3, 7):
        [gradient] = torch.autograd.grad(states[0, :, position].sum(), mel, retain_graph=True)
        frames = gradient[0].abs().sum(0).nonzero().flatten()
        middle = (int(frames.min()) + int(frames.max())) // 2
        center = int(encoder.first_center) + STRIDE * position
        wav = np.zeros(16000, dtype=np.float32)
        wav[center - 20 : center + 20] = 0.5
        loudest = extractor(wav, sampling_rate=16000)["input_features"][0].mean(0).argmax()
        assert int(loudest) == middle
