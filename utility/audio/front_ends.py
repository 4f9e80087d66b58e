"""The front ends by name. Another one is a file beside these, and a line here."""

from mynah.utility.audio.front_end import FrontEnd
from mynah.utility.audio.kaldi import Fbank, KaldiSpectrogram, Mfcc
from mynah.utility.audio.spectrogram import Spectrogram

FRONT_ENDS: dict[str, type[FrontEnd]] = {
    "spectrogram": Spectrogram,
    "fbank": Fbank,
    "mfcc": Mfcc,
    "kaldi_spectrogram": KaldiSpectrogram,
}
