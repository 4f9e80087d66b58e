"""Audio files as 16 kHz mono waveforms: finding them, reading their headers, reading the segment that is needed."""

import os
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio

from mynah.utility.data.media_files import UnreadableMedia, find_files, why_unopenable

SAMPLE_RATE = 16000
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")

# Input samples that torchaudio's resampling filter reaches over on each side of an output sample, in periods of the
# lower of both rates, at its default width (6) and roll-off (0.99), and one more for good measure.
FILTER_REACH = 8

# Samples that are decoded before a segment of an MP3 file: 32 of its frames of at most 1152, more than its reservoir
# of bits can reach back at the lowest bit rate.
MP3_LEAD = 32 * 1152

# libsndfile reads what is there of a cut-off WAV file and leaves word of it in its log. Programs that write to a pipe
# announce about 2 or 4 GiB as they do not know better; such a file is whole.
CUT_OFF_WAV = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_BYTES = 0x7FFF0000


class UnreadableAudio(UnreadableMedia):
    """An audio file that cannot be used."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says; `frames` are samples per channel at `sample_rate` Hz."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def samples(self) -> int:
        """The length that `read_audio` gives: samples at 16 kHz."""
        return _resampled_length(self.frames, _ratio(self.sample_rate))


def find_audio(root: Path) -> list[Path]:
    """All audio files below `root`, by suffix, sorted; links are followed, hidden files are not audio.

    Raises UserError where `root` is missing, is no folder, holds no audio, or it or a folder in it may not be read.
    """
    return find_files(root, AUDIO_SUFFIXES, "audio files")


def audio_info(path: str | os.PathLike) -> AudioInfo:
    """Length, rate and channels from the file's header. Raises UnreadableAudio."""
    with _open(path) as file:
        return _info(file, path)


def read_audio(path: str | os.PathLike, start: int = 0, num_samples: int | None = None) -> torch.Tensor:
    """A segment of a file, (T,) float32 in [-1, 1] at 16 kHz, the mean of its channels.

    start, num_samples: in samples at 16 kHz; num_samples None is "to the end". T is num_samples, or what is left from
    `start`. Only the frames needed are read, and the segment is the same slice of the whole file.
    Raises UnreadableAudio for a file that is missing, forbidden, no audio, empty, truncated, or has NaN or infinite
    samples in the segment.
    """
    if start < 0 or (num_samples is not None and num_samples < 0):
        raise ValueError(f"start and num_samples must not be negative, got {start} and {num_samples}")
    with _open(path) as file:
        info = _info(file, path)
        stop = info.samples if num_samples is None else min(info.samples, start + num_samples)
        if start >= stop:
            return torch.zeros(0)
        return _read_segment(file, path, _ratio(info.sample_rate), start, stop).clamp_(-1.0, 1.0)


def trim_silence(wav: torch.Tensor, top_db: float = 40.0) -> tuple[torch.Tensor, int]:
    """(T,) without the start and end that are more than `top_db` below the loudest frame (librosa.effects.trim), and
    the samples that were cut off at the start."""
    import librosa

    _, (start, stop) = librosa.effects.trim(wav.numpy(), top_db=top_db)
    return wav[start:stop], int(start)


def with_gain(wav: torch.Tensor, gain_db: float) -> torch.Tensor:
    """(T,) at a level that is changed by `gain_db`, clipped to [-1, 1]; the tensor itself for 0 dB."""
    return wav if gain_db == 0 else (wav * 10 ** (gain_db / 20)).clamp(-1.0, 1.0)


def _read_segment(
    file: soundfile.SoundFile, path: str | os.PathLike, ratio: Fraction, start: int, stop: int
) -> torch.Tensor:
    """Samples start to stop at 16 kHz.

    The filter repeats every `numerator` outputs and `denominator` inputs, so a segment that begins a whole number of
    such periods into the file, with the filter's reach to spare, is resampled as it is within the whole file.
    """
    if ratio == 1:
        return _read_frames(file, path, start, stop)
    up, down = ratio.numerator, ratio.denominator
    reach = FILTER_REACH * max(1, -(-down // up))
    first_period = max(0, (start * down // up - reach) // down)
    first = first_period * down
    last = min(file.frames, -(-stop * down // up) + reach + 1)
    wav = _resampler(down, up)(_read_frames(file, path, first, last))
    offset = start - first_period * up
    return wav[offset : offset + stop - start]


@lru_cache(maxsize=8)
def _resampler(rate: int, new_rate: int) -> torchaudio.transforms.Resample:
    """torchaudio's, whose filter takes longer to compute than a short file to resample."""
    return torchaudio.transforms.Resample(rate, new_rate, dtype=torch.float32)  # as its function computes it


def _read_frames(file: soundfile.SoundFile, path: str | os.PathLike, first: int, last: int) -> torch.Tensor:
    """The channels' mean, (last - first,) float32 at the file's own rate."""
    # libsndfile may land elsewhere when it seeks near the end of a Vorbis file, so that is read from its start. What
    # an MP3 says of a frame may stand some frames before it.
    skipped = first if file.format == "OGG" else min(first, MP3_LEAD) if file.format.startswith("MP3") else 0
    try:
        if first > skipped:
            file.seek(first - skipped)
        frames = file.read(skipped + last - first, dtype="float32", always_2d=True)[skipped:]
    except soundfile.LibsndfileError as error:
        raise UnreadableAudio(path, f"damaged or truncated ({error})") from error
    if len(frames) < last - first:
        raise UnreadableAudio(
            path, f"truncated: its header tells of {file.frames} samples, but it ends at {first + len(frames)}"
        )
    if not np.isfinite(frames).all():
        raise UnreadableAudio(path, "holds NaN or infinite samples")
    return torch.from_numpy(frames[:, 0] if frames.shape[1] == 1 else frames.mean(axis=1))


def _info(file: soundfile.SoundFile, path: str | os.PathLike) -> AudioInfo:
    if file.frames == 0:
        raise UnreadableAudio(path, "empty or truncated: it holds no samples")
    cut_off = CUT_OFF_WAV.search(file.extra_info) if file.format.startswith("WAV") else None
    if cut_off and int(cut_off[1]) < UNKNOWN_BYTES:
        raise UnreadableAudio(path, f"truncated: {cut_off[2]} bytes of sound where its header tells of {cut_off[1]}")
    if file.frames >= 2**62:
        raise UnreadableAudio(path, "its header does not tell its length; write it anew, e.g. with ffmpeg")
    return AudioInfo(file.frames, file.samplerate, file.channels)


def _open(path: str | os.PathLike) -> soundfile.SoundFile:
    if not os.path.isfile(path):  # noqa: PTH113 (a pipe would be waited for); and a warm scan is little else
        raise UnreadableAudio(path, why_unopenable(Path(path)) or "not a regular file")
    try:
        return soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path)  # a name may be no UTF-8
    except (soundfile.LibsndfileError, OSError) as error:
        told = getattr(error, "error_string", error)  # without the name
        reason = why_unopenable(Path(path)) or f"not readable as audio ({told})"
        raise UnreadableAudio(path, reason) from error


def _ratio(sample_rate: int) -> Fraction:
    """16 kHz by `sample_rate`; for odd rates such as 15999 Hz the nearest ratio that has a small filter bank.

    That bends their speed by less than one part in 1000, and leaves all rates in common use exact.
    """
    return Fraction(SAMPLE_RATE, sample_rate).limit_denominator(1000)


def _resampled_length(frames: int, ratio: Fraction) -> int:
    return -(-frames * ratio.numerator // ratio.denominator)
