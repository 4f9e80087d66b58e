"""The baselines by name: Kaldi's features and log spectrograms, each from one of the front ends."""

from pydantic import Field

from mynah.utility.audio import kaldi
from mynah.utility.audio.front_end import FrontEnd
from mynah.utility.audio.front_ends import FRONT_ENDS
from mynah.utility.audio.spectrogram import SpectrogramConfig
from mynah.utility.configuration.sections import Section


class FeatureOptions(Section):
    """What is done with any feature."""

    num_deltas: int = Field(0, ge=0, le=2)
    """Orders of derivatives appended to the features."""
    cmvn: bool = True
    """Mean and variance normalization per utterance."""


class FbankConfig(kaldi.FbankConfig, FeatureOptions):
    """Kaldi's log mel filter bank energies."""

    num_deltas: int = Field(2, ge=0, le=2)
    """Orders of derivatives appended to the features."""


class MfccConfig(kaldi.MfccConfig, FeatureOptions):
    """Kaldi's mel-frequency cepstral coefficients."""

    num_deltas: int = Field(2, ge=0, le=2)
    """Orders of derivatives appended to the features."""


class KaldiSpectrogramConfig(kaldi.KaldiConfig, FeatureOptions):
    """Kaldi's log power spectrogram, with the log energy in place of bin 0."""


class LogSpectrogramConfig(SpectrogramConfig, FeatureOptions):
    """The front end of the pretrained models, as features of its own."""


BASELINES: dict[str, tuple[type[FeatureOptions], str, str]] = {
    "fbank": (FbankConfig, "fbank", "fbank"),
    "mfcc": (MfccConfig, "mfcc", "mfcc"),
    "spectrogram": (KaldiSpectrogramConfig, "kaldi_spectrogram", "kaldi_spectrogram"),
    "mel": (LogSpectrogramConfig, "spectrogram", "mel"),
    "linear": (LogSpectrogramConfig, "spectrogram", "linear"),
}
"""Name of the baseline -> its configuration, its front end (FRONT_ENDS) and the feature of it."""


def build_front_end(name: str, config: FeatureOptions) -> tuple[FrontEnd, str]:
    """The front end of the baseline `name`, and the name of the feature that it is asked for."""
    _, front_end, feature = BASELINES[name]
    return FRONT_ENDS[front_end](config), feature
