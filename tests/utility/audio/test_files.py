"""utility/audio/files.py against soundfile's full read and librosa's or torchaudio's resampling of it."""

import math
import os
import tempfile
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from mynah.utility.audio import files
from mynah.utility.audio.files import UnreadableAudio, audio_info, find_audio, read_audio, trim_silence
from mynah.utility.errors import UserError


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    generator = np.random.default_rng(rate + channels)
    return generator.uniform(-0.5, 0.5, (int(seconds * rate), channels)).astype(np.float32)


@pytest.fixture
def as_nobody():
    """Whom file permissions bind, also where the tests run as root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("no POSIX permissions here")
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(
    ("rate", "channels"), [(16000, 1), (16000, 2), (44100, 2), (48000, 1), (8000, 1), (11025, 2)]
)
def test_segment_is_the_slice_of_the_whole_file_resampled(tmp_path, suffix, rate, channels):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(2.013, rate, channels), rate)
    frames, _ = soundfile.read(path, dtype="float32", always_2d=True)
    whole = torchaudio.functional.resample(torch.from_numpy(frames.mean(axis=1)), rate, 16000).clamp(-1, 1)
    assert audio_info(path).samples == len(whole) == math.ceil(len(frames) * 16000 / rate)
    total = len(whole)
    for start, num_samples in [
        (0, None),
        (0, 100),
        (1, 7),
        (777, 9001),
        (total - 5, 4),
        (total - 3000, 10**6),
        (20000, None),
    ]:
        segment = read_audio(path, start, num_samples)
        expected = whole[start:] if num_samples is None else whole[start : start + num_samples]
        assert segment.dtype == torch.float32
        assert segment.shape == expected.shape
        torch.testing.assert_close(segment, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [16000, 44100, 48000, 8000])
@pytest.mark.parametrize("compression", [0.5, 0.99])
def test_segments_of_an_mp3_are_whole_also_where_its_frames_share_bits(tmp_path, rate, compression):
    """Sound and silence in turn, at bit rates at which a frame's bits begin in earlier frames."""
    path, generator = tmp_path / "a.mp3", np.random.default_rng(3)
    time = np.arange(6 * rate) / rate
    wav = 0.3 * np.sin(2 * np.pi * (200 + 150 * time) * time) * (np.sin(2 * np.pi * 1.3 * time) > -0.3)
    soundfile.write(path, wav + 0.02 * generator.standard_normal(len(wav)), rate, compression_level=compression)
    frames, _ = soundfile.read(path, dtype="float32")
    whole = torchaudio.functional.resample(torch.from_numpy(frames), rate, 16000).clamp(-1, 1)
    for start in generator.integers(0, len(whole) - 16000, 25).tolist():
        torch.testing.assert_close(read_audio(path, start, 16000), whole[start : start + 16000], atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [44100, 8000])
def test_resampling_agrees_with_librosa(tmp_path, rate):
    seconds = np.arange(rate) / rate
    wav = sum(np.sin(2 * np.pi * hertz * seconds + hertz) for hertz in (97, 440, 1300, 2900)) / 5
    soundfile.write(tmp_path / "a.wav", wav, rate, subtype="FLOAT")
    expected = librosa.resample(wav, orig_sr=rate, target_sr=16000, res_type="soxr_vhq")
    inner = slice(400, -400)  # both know nothing of what lies beyond the ends
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").numpy()[inner], expected[inner], atol=2e-3)


def test_channels_are_averaged(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile([[0.5, -0.25]], (2000, 1)), 16000, subtype="FLOAT")
    assert torch.equal(read_audio(tmp_path / "a.wav"), torch.full((2000,), 0.125))


def test_values_stay_within_one(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile([3.0, -3.0], 1000), 16000, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav").abs().max() == 1


@pytest.mark.parametrize("rate", [15999, 44101])
def test_odd_rates_keep_length_and_pitch(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate), rate)
    wav = read_audio(tmp_path / "a.wav")
    assert len(wav) == audio_info(tmp_path / "a.wav").samples
    assert abs(len(wav) - 32000) <= 32
    assert torch.fft.rfft(wav).abs().argmax() * 16000 / len(wav) == pytest.approx(1000, rel=1e-3)


def test_a_start_past_the_end_gives_nothing(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(0.1, 16000), 16000)
    assert read_audio(tmp_path / "a.wav", start=1600).shape == (0,)
    with pytest.raises(ValueError, match="negative"):
        read_audio(tmp_path / "a.wav", start=-1)


def test_real_speech_reads_as_soundfile_reads_it(shared_data):
    path = min((shared_data / "LibriSpeech" / "test-other").rglob("*.flac"))
    expected, rate = soundfile.read(path, dtype="float32")
    assert rate == 16000
    np.testing.assert_array_equal(read_audio(path, 12345, 20000).numpy(), expected[12345:32345])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("suffix", "reason"), [("wav", "truncated"), ("flac", "truncated"), ("mp3", "truncated"), ("ogg", "trunc")]
)
def test_truncated_files_are_refused(tmp_path, suffix, reason):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(2, 16000), 16000)
    cut(path)
    with pytest.raises(UnreadableAudio, match="truncated") as caught:
        read_audio(path)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)


def test_a_wav_written_to_a_pipe_is_whole(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1, 16000), 16000)
    content = bytearray(path.read_bytes())
    where = content.index(b"data")
    content[4:8] = content[where + 4 : where + 8] = b"\xff" * 4
    path.write_bytes(content)
    assert len(read_audio(path)) == audio_info(path).samples == 16000


def test_a_flac_of_untold_length_is_refused(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(1, 16000), 16000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # STREAMINFO's 36 bits of total samples: 0 is "unknown"
    content[22:26] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(UnreadableAudio, match="does not tell its length"):
        audio_info(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_samples_are_refused_where_they_are_read(tmp_path, value):
    wav = noise(1, 16000)
    wav[8000] = value
    soundfile.write(tmp_path / "a.wav", wav, 16000, subtype="FLOAT")
    with pytest.raises(UnreadableAudio, match="NaN or infinite"):
        read_audio(tmp_path / "a.wav")
    assert len(read_audio(tmp_path / "a.wav", 0, 8000)) == 8000


def test_every_other_unreadable_file_says_why(tmp_path):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.flac").write_text("not audio")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere.wav")
    soundfile.write(tmp_path / "hollow.wav", np.zeros(0), 16000)
    reasons = {
        "empty.wav": "empty",
        "text.flac": "not readable as audio",
        "folder.wav": "a folder",
        "link.wav": "a link to a missing file",
        "absent.wav": "missing",
        "hollow.wav": "holds no samples",
    }
    for name, reason in reasons.items():
        for read in (audio_info, read_audio):
            with pytest.raises(UnreadableAudio, match=reason):
                read(tmp_path / name)


def test_forbidden_files_and_folders_say_so(as_nobody):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is below a folder of the first user's
        path = Path(folder) / "a.wav"
        soundfile.write(path, noise(0.1, 16000), 16000)
        path.chmod(0)
        with pytest.raises(UnreadableAudio, match="permission denied"):
            read_audio(path)
        inner = Path(folder) / "inner"
        inner.mkdir(mode=0)
        with pytest.raises(UserError, match=rf"{inner}.*permission denied"):
            find_audio(Path(folder))
        inner.chmod(0o700)


def test_audio_is_found_at_any_depth_in_order(tmp_path):
    wanted = ["a.WAV", "b/c/d.flac", "b/c.mp3", "z.ogg"]
    for name in [*wanted, "b/notes.txt", "b/._a.wav", "a.wav.part"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_audio(tmp_path) == sorted((tmp_path / name for name in wanted), key=str)


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.wav").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(root)
    assert find_audio(root) == [root / "link" / "a.wav"]


def test_folders_without_audio_are_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, reason in {"absent": "not found", "file": "not a folder", "empty": "no audio files below"}.items():
        with pytest.raises(UserError, match=reason) as caught:
            find_audio(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_trimming_keeps_the_loud_middle():
    wav = torch.from_numpy(noise(2, 16000)[:, 0].copy())
    wav[:8000] *= 1e-4
    wav[24000:] *= 1e-4
    trimmed, start = trim_silence(wav)
    torch.testing.assert_close(trimmed, wav[start : start + len(trimmed)])
    offset = int((wav == trimmed[0]).nonzero()[0])
    assert torch.equal(trimmed, wav[offset : offset + len(trimmed)])
    assert 8000 - 2048 <= offset <= 8000
    assert 24000 <= offset + len(trimmed) <= 24000 + 2048


def test_a_resamplers_filter_is_computed_once(tmp_path):
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", noise(0.1, 22050, 1), 22050)
    files._resampler.cache_clear()
    for name in "abc":
        read_audio(tmp_path / f"{name}.wav")
    assert files._resampler.cache_info().misses == 1


def test_a_pipe_is_no_audio_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(UnreadableAudio, match="not a regular file"):
        read_audio(tmp_path / "pipe.wav")


def test_a_name_that_is_not_utf8_is_a_name(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(0.1, 16000), 16000)
    odd = tmp_path / os.fsdecode(b"na\xefve.wav")
    try:
        (tmp_path / "a.wav").rename(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(read_audio(odd)) == audio_info(odd).samples == 1600
