"""utility/demo/speech.py: the corpora as they lie on the disk, read with soundfile alone."""

import csv
import re
import sys
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mynah.utility.demo import speech as demo_speech
from mynah.utility.demo.espeak import Espeak, VoiceSettings
from mynah.utility.demo.sentences import demo_sentences
from mynah.utility.demo.studio import write_audio
from mynah.utility.errors import UserError


@pytest.fixture(scope="module")
def spoken() -> list[str]:
    """The sentences of the VoxCeleb1 demo, in the order spoken."""
    return []


@pytest.fixture(scope="module")
def corpora(tmp_path_factory, spoken) -> dict[str, Path]:
    """Both corpora, made once for this file."""

    def speak(self, text, manner, original=Espeak.speak):
        spoken.append(text)
        return original(self, text, manner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYNAH_CACHE", str(tmp_path_factory.mktemp("demo")))
        librispeech = demo_speech.demo_librispeech()
        patch.setattr(Espeak, "speak", speak)
        return {
            "LibriSpeech": librispeech,
            "VoxCeleb1": demo_speech.demo_voxceleb1(),
            "labels": demo_speech.demo_labels(),
        }


def audio_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix in (".wav", ".flac"))


def split_list(corpora) -> list[tuple[str, str]]:
    lines = (corpora["VoxCeleb1"] / "iden_split.txt").read_text().splitlines()
    return [tuple(line.split(" ")) for line in lines]


def test_every_utterance_is_audible_unclipped_speech_of_2_to_5_seconds(corpora):
    for path in audio_files(corpora["LibriSpeech"]) + audio_files(corpora["VoxCeleb1"]):
        wav, rate = soundfile.read(path, dtype="float32")
        frames = wav[: len(wav) // 400 * 400].reshape(-1, 400)
        level = np.sqrt((frames**2).mean(axis=1))
        assert rate == 16000
        assert wav.ndim == 1
        assert 2.0 <= len(wav) / rate <= 5.0
        assert 0.25 < np.abs(wav).max() < 0.95
        assert np.sqrt((wav**2).mean()) > 0.02
        assert (level < 0.05 * level.max()).mean() < 0.5
        # Speech rises and falls, unlike a tone or the noise: its loud frames are far above its quiet ones.
        assert np.quantile(level, 0.9) > 2 * np.quantile(level, 0.05)


def test_librispeech_has_its_layout_and_24_speakers(corpora):
    root = corpora["LibriSpeech"]
    names = [path.relative_to(root).as_posix() for path in audio_files(root)]
    matches = [re.fullmatch(r"train-demo/(\d+)/(\d+)/\1-\2-\d{4}\.flac", name) for name in names]
    assert root.name == "LibriSpeech"
    assert all(matches)
    assert len({match[1] for match in matches}) == 24


def test_voxceleb1_has_its_layout_and_the_list_names_every_file_once(corpora):
    listed = [name for _, name in split_list(corpora)]
    there = [path.relative_to(corpora["VoxCeleb1"] / "wav").as_posix() for path in audio_files(corpora["VoxCeleb1"])]
    assert sorted(listed) == there
    assert all(re.fullmatch(r"id1\d{4}/[\w-]{11}/\d{5}\.wav", name) for name in listed)


def test_every_speaker_is_in_every_split_and_no_video_is_in_two(corpora):
    splits_of_video = defaultdict(set)
    counts = Counter()
    for split, name in split_list(corpora):
        splits_of_video[name.rsplit("/", 1)[0]].add(split)
        counts[name.split("/")[0], split] += 1
    assert all(len(splits) == 1 for splits in splits_of_video.values())
    speakers = {speaker for speaker, _ in counts}
    assert 12 <= len(speakers) <= 20
    assert counts.keys() == {(speaker, split) for speaker in speakers for split in "123"}


def test_no_sentence_is_spoken_in_two_splits(corpora, spoken):
    by_split = defaultdict(set)
    for (split, _), sentence in zip(split_list(corpora), spoken, strict=True):
        by_split[split].add(sentence)
    assert all(a.isdisjoint(b) for a, b in combinations(by_split.values(), 2))


def test_labels_cover_the_list_with_both_genders_and_female_voices_are_higher(corpora):
    with corpora["labels"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    split_names = {"1": "train", "2": "dev", "3": "test"}
    assert [(row["path"], row["split"]) for row in rows] == [
        (f"wav/{name}", split_names[split]) for split, name in split_list(corpora)
    ]
    pitches = defaultdict(list)
    for row in rows[::9]:
        pitches[row["label"]].append(median_pitch(corpora["labels"].parent / row["path"]))
    assert pitches.keys() == {"female", "male"}
    assert np.median(pitches["female"]) > 1.3 * np.median(pitches["male"])


def median_pitch(path: Path) -> float:
    """Hz, by the highest peak of the autocorrelation of the louder frames."""
    wav, rate = soundfile.read(path)
    frames = wav[: len(wav) // 800 * 800].reshape(-1, 800)
    frames = frames[(frames**2).mean(axis=1) > (wav**2).mean()]
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 1600)) ** 2)[:, rate // 400 : rate // 60]
    return float(np.median(rate / (correlation.argmax(axis=1) + rate // 400)))


def test_pretraining_and_probe_share_no_speaker():
    pretraining = demo_speech.demo_speakers(demo_speech.PRETRAIN_TIMBRES, relatives=2)
    probe = demo_speech.demo_speakers(demo_speech.PROBE_TIMBRES, relatives=4)
    assert len(set(pretraining)) == 24
    assert len(set(probe)) == 16
    assert {each.timbre for each in pretraining}.isdisjoint(each.timbre for each in probe)


def test_every_voice_and_variant_exists():
    loader = pytest.importorskip("espeakng_loader")
    data = Path(loader.get_data_path())
    variants = {path.name for path in (data / "voices" / "!v").iterdir()}
    languages = {path.name.lower() for path in (data / "lang").rglob("*")}
    assert {name for name, _ in demo_speech.PRETRAIN_TIMBRES + demo_speech.PROBE_TIMBRES} <= variants
    assert set(demo_speech.ACCENTS) <= languages


def test_together_they_take_less_than_60_mb(corpora):
    files = [path for name in ("LibriSpeech", "VoxCeleb1") for path in corpora[name].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60e6


def test_a_cache_that_cannot_be_written_is_the_users_to_mend(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MYNAH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="MYNAH_CACHE"):
        demo_speech.demo_librispeech()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_recording_on_a_full_disk_is_an_error_and_not_a_cut_off_file(tmp_path, suffix):
    wav = 0.1 * np.random.default_rng(0).standard_normal(1000)
    write_audio(tmp_path / f"whole{suffix}", wav)
    assert np.abs(soundfile.read(tmp_path / f"whole{suffix}")[0] - wav).max() < 2 / 32768
    (tmp_path / f"full{suffix}").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_audio(tmp_path / f"full{suffix}", wav)


def test_a_missing_synthesizer_names_the_package_and_the_way_around(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"espeakng-loader.*datarc\.file_path"):
        demo_speech.demo_librispeech()


def test_a_higher_pitch_and_a_slower_pace_are_heard(tmp_path):
    with Espeak() as synthesizer:
        rate = synthesizer.sample_rate
        text = "Seven silver lanterns were hanging over the river."
        spoken = {
            (pitch, pace): synthesizer.speak(text, VoiceSettings("en-us", pace, pitch, pitch_range=20))
            for pitch, pace in ((30, 170), (80, 170), (30, 240))
        }
    for key, wav in spoken.items():
        soundfile.write(tmp_path / f"{key[0]}-{key[1]}.wav", wav, rate)
    assert median_pitch(tmp_path / "80-170.wav") > 1.2 * median_pitch(tmp_path / "30-170.wav")
    assert len(spoken[30, 170]) > 1.15 * len(spoken[30, 240])


def test_an_unknown_voice_is_refused():
    with Espeak() as synthesizer, pytest.raises(ValueError, match="xx-nowhere"):
        synthesizer.speak("Hello.", VoiceSettings("xx-nowhere"))


def test_data_below_a_long_path_is_found(monkeypatch, tmp_path):
    long = tmp_path / ("long" * 50) / "espeak-ng-data"
    long.parent.mkdir()
    loader = pytest.importorskip("espeakng_loader")
    long.symlink_to(loader.get_data_path())
    monkeypatch.setattr(loader, "get_data_path", lambda: str(long))
    with Espeak() as synthesizer:
        assert len(synthesizer.speak("Good morning.", VoiceSettings("en-us+f2"))) > 0.4 * synthesizer.sample_rate


def test_sentences_have_10_to_19_words():
    assert {len(sentence.split()) for sentence in demo_sentences(4000, seed=1)} == set(range(10, 20))


def test_sentences_are_all_different_and_follow_from_the_seed():
    sentences = demo_sentences(500, seed=3)
    assert len(set(sentences)) == 500
    assert demo_sentences(500, seed=3) == sentences
    assert demo_sentences(500, seed=4) != sentences
    for sentence in sentences:
        assert 7 <= len(sentence.split()) <= 20
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |, ,", sentence)
