"""Normalization over the corpus, against numpy over the concatenated frames of torchaudio's spectrograms."""

import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor

from mynah.utility.acoustic.corpus_statistics import CorpusStatistics
from mynah.utility.acoustic.features import AcousticFeaturesConfig, FeatureConfig, StackedFeatures
from mynah.utility.configuration.load import from_plain, to_plain
from mynah.utility.errors import UserError
from mynah.utility.nn.padding import pad_signals

MEL = torchaudio.transforms.MelSpectrogram(16000, 512, 400, 160, n_mels=40)
CORPUS = FeatureConfig(num_deltas=1, cmvn="corpus")


@pytest.fixture(scope="module")
def signals() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [scale * torch.randn(samples, generator=generator) for samples, scale in ((9000, 0.3), (16000, 0.01))]


@pytest.fixture
def features(signals) -> StackedFeatures:
    plain = {"spectrogram": {"n_fft": 512, "n_mels": 40}}
    stacked = StackedFeatures(from_plain(AcousticFeaturesConfig, plain, "test"), 2)
    stacked.declare(CORPUS, CORPUS, FeatureConfig())
    stacked.fit(lambda: iter(signals))
    return stacked


def frames_of(signal: Tensor) -> np.ndarray:
    """(F, 80) double: log mel and its derivative."""
    mel = (MEL(signal).double() + 1e-10).log()
    return torch.cat([mel, torchaudio.functional.compute_deltas(mel, win_length=5)]).T.numpy()


def test_mean_and_deviation_are_those_of_all_frames(features, signals):
    frames = np.concatenate([frames_of(signal) for signal in signals])
    (statistics,) = features.statistics.values()
    np.testing.assert_allclose(statistics.mean, frames.mean(0), atol=1e-3)
    np.testing.assert_allclose(statistics.deviation, frames.std(0, ddof=1), rtol=1e-3)
    assert sorted(features.state_dict()) == ["statistics.mel_1.deviation", "statistics.mel_1.mean"]


def test_every_utterance_is_normalized_by_the_corpus(features, signals):
    frames = [frames_of(signal) for signal in signals]
    mean, deviation = np.concatenate(frames).mean(0), np.concatenate(frames).std(0, ddof=1)
    stacked = features.stacked(features(*pad_signals(signals)), CORPUS)
    for row, own in enumerate(frames):
        count = len(own) // 2
        expected = ((own - mean) / deviation)[: 2 * count]
        np.testing.assert_allclose(stacked[row, :count].flatten(0, 1), expected, atol=5e-3)
        assert (stacked[row, count + 1 :] == 0).all()
    loud, soft = (stacked[row, :20, :, :40].mean() for row in (0, 1))
    assert loud > soft + 1  # the level, which normalization over the utterance takes away


@pytest.mark.parametrize("cmvn", ["utterance", "corpus", "none"])
def test_chosen_positions_have_the_values_that_they_have_among_all(features, signals, cmvn):
    feature = FeatureConfig(num_deltas=1, cmvn=cmvn)
    heard = features(*pad_signals(signals))
    chosen = torch.zeros(2, 50, dtype=torch.bool)
    chosen[0, [0, 7, 26]] = chosen[1, [1, 49]] = True
    expected = features.stacked(heard, feature)[chosen].flatten(1)
    places = chosen.flatten().nonzero()[:, 0]
    torch.testing.assert_close(features.at(heard, feature, places), expected, atol=1e-5, rtol=1e-5)


def test_statistics_stop_at_the_hours_that_are_given(signals):
    config = from_plain(AcousticFeaturesConfig, {"statistics_hours": 9000 / 16000 / 3600}, "test")
    features, read = StackedFeatures(config, 2), []
    features.declare(FeatureConfig(cmvn="corpus"))
    features.fit(lambda: (read.append(len(signal)) or signal for signal in signals))
    assert read == [9000]


def test_a_bin_that_never_changes_becomes_zero_and_unmeasured_features_pass():
    statistics = CorpusStatistics(2)
    x = torch.tensor([[5.0, -23.0258], [1.0, -23.0258], [3.0, -23.0258]])
    assert torch.equal(statistics(x), x)
    statistics.add(x)
    statistics.finish()
    torch.testing.assert_close(statistics(x), torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    assert (statistics(torch.tensor([[5.0, 99.0]]))[0, 1] == 0).all()


def test_large_offsets_do_not_cancel():
    x = 1e4 + torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    statistics = CorpusStatistics(3)
    for part in x.split(77):
        statistics.add(part)
    statistics.finish()
    torch.testing.assert_close(statistics.deviation, x.double().std(0).float(), rtol=1e-5, atol=0)


def test_no_readable_utterance_is_told():
    with pytest.raises(UserError, match="no utterance could be read"):
        CorpusStatistics(2).finish()


def test_statistics_stay_in_single_precision(features):
    (statistics,) = features.half().statistics.values()
    assert statistics.mean.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "name"), [(True, "utterance"), (False, "none"), ("true", "utterance"), ("corpus", "corpus")]
)
def test_values_of_earlier_versions_are_taken_by_their_names(given, name):
    assert to_plain(from_plain(FeatureConfig, {"cmvn": given}, "test"))["cmvn"] == name
