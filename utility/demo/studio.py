"""Recordings of eSpeak NG's voices: sentences spoken into files, each with its own manner, microphone and room."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from mynah.utility.audio.alignment import Segment
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.demo.espeak import Espeak, Phoneme, VoiceSettings

LONGEST_SECONDS = 5.0
TONE_DB = 6.0  # a recording's tone: this much up or down, drawn at every kHz
LIVELINESS = (35, 65)  # the range of the range of pitch
PAUSE = "SIL"

Labeller = Callable[[np.ndarray, Sequence[Phoneme]], list[tuple[int, str]]]
"""What was spoken, and what eSpeak calls its parts -> where each label begins, in samples, in order."""


@dataclass(frozen=True)
class Speaker:
    """accent and timbre: an eSpeak voice and variant; pitch, words_per_minute: its usual ones (see VoiceSettings).

    formant_scale: all frequencies are multiplied by it; eSpeak's own voice is 1.
    """

    accent: str
    timbre: str
    gender: str
    pitch: int
    words_per_minute: int
    formant_scale: float


class Studio:
    """Speaks sentences into files; every random choice follows from the seed and the order of the calls.

    `espeak` must be open meanwhile. noise_db: the range of how far below the speech the noise is.
    """

    def __init__(self, seed: int, noise_db: tuple[float, float]) -> None:
        self.espeak, self.noise_db = Espeak(), noise_db
        self._draw = np.random.default_rng(seed)

    def record(
        self,
        sentence: str,
        speaker: Speaker,
        path: Path,
        longest: float = LONGEST_SECONDS,
        pitch_range: tuple[int, int] = LIVELINESS,
    ) -> None:
        """Speak into `path`, at 16 kHz, what lasts longer than `longest` seconds being cut."""
        spoken, rate = self._speak(sentence, speaker, pitch_range)
        self._write(_resample(spoken, rate)[: int(longest * SAMPLE_RATE)], path)

    def record_aligned(
        self, sentence: str, speaker: Speaker, path: Path, pauses: tuple[float, float], label: Labeller
    ) -> list[Segment]:
        """Speak into `path`, between pauses of a length drawn from `pauses` (seconds), and tell when each label was.

        The segments cover the whole recording, in order.
        """
        spoken, rate = self._speak(sentence, speaker, LIVELINESS)
        pads = [round(rate * seconds) for seconds in self._draw.uniform(*pauses, size=2)]
        parts = label(spoken, self.espeak.phonemes)
        wav = _resample(np.pad(spoken, pads), rate)
        self._write(wav, path)
        # Resampled time is that of the voice at its own rate: formants and pace are scaled together.
        edges = [0.0, *((pads[0] + start) / rate for start, _ in parts), len(wav) / SAMPLE_RATE]
        labels = [PAUSE, *(name for _, name in parts)]
        if labels[-1] != PAUSE:
            edges.insert(-1, (pads[0] + len(spoken)) / rate)
            labels.append(PAUSE)
        return [Segment(*part) for part in zip(edges[:-1], edges[1:], labels, strict=True)]

    def _speak(self, sentence: str, speaker: Speaker, pitch_range: tuple[int, int]) -> tuple[np.ndarray, int]:
        """(T,) float32, and the samples a second to play it at."""
        draw = self._draw
        manner = VoiceSettings(
            voice=f"{speaker.accent}+{speaker.timbre}",
            words_per_minute=round(speaker.words_per_minute * draw.uniform(0.93, 1.1)),
            pitch=round(speaker.pitch + draw.uniform(-6, 6)),
            pitch_range=round(draw.uniform(*pitch_range)),
        )
        formant_scale = speaker.formant_scale * draw.choice((0.99, 1.0, 1.01))
        spoken = self.espeak.speak(sentence, manner)
        # A multiple of 200 Hz: a small filter bank suffices to resample it.
        return spoken, 200 * round(self.espeak.sample_rate * formant_scale / 200)

    def _write(self, wav: np.ndarray, path: Path) -> None:
        wav = _through_a_channel(wav, self._draw, self.noise_db)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, wav)


def write_audio(path: Path, wav: np.ndarray) -> None:
    """(T,) in [-1, 1] as 16 bits, in the format that the suffix names. Raises OSError.

    By way of the memory: on a full disk libsndfile itself leaves a cut-off file behind and says nothing.
    """
    file = io.BytesIO()
    soundfile.write(file, wav, SAMPLE_RATE, subtype="PCM_16", format=path.suffix[1:].upper())
    path.write_bytes(file.getvalue())


def _resample(wav: np.ndarray, rate: int) -> np.ndarray:
    with torch.inference_mode():
        return _resampler(rate)(torch.from_numpy(wav)).numpy()


@lru_cache(maxsize=32)
def _resampler(rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, SAMPLE_RATE)


def _through_a_channel(wav: np.ndarray, draw: np.random.Generator, noise_db: tuple[float, float]) -> np.ndarray:
    """(T,) as another microphone hears it: with a tone, some noise and a loudness (its peak) drawn at random."""
    spectrum = np.fft.rfft(wav)
    khz = np.linspace(0, SAMPLE_RATE / 2000, len(spectrum))
    gain_db = np.interp(khz, np.arange(9), draw.uniform(-TONE_DB, TONE_DB, size=9))
    wav = np.fft.irfft(spectrum * 10 ** (gain_db / 20), n=len(wav))
    noise_level = np.sqrt(np.mean(wav**2)) * 10 ** (-draw.uniform(*noise_db) / 20)
    wav = wav + noise_level * draw.standard_normal(len(wav))
    return (wav * (draw.uniform(0.3, 0.9) / np.abs(wav).max())).astype(np.float32)
