"""Demo corpora: sentences spoken by eSpeak NG, laid out on disk as LibriSpeech and VoxCeleb1 are.

Each is made once, in seconds, into the user's cache folder. Speakers come in families of alike voices, and every
utterance has a pitch, pace, tone, loudness and noise of its own, so that telling speakers apart is not trivial.
"""

import csv
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.data.splits import name_percentage
from mynah.utility.demo.cached_corpus import cached_corpus
from mynah.utility.demo.sentences import demo_sentences
from mynah.utility.demo.studio import Speaker, Studio, write_audio

DEMO_VERSION = "2"  # one up whenever a corpus changes, so that an older one in the cache is not taken for it
SPOKEN = "speech by eSpeak NG"
VIDEO_SIZE = 3  # utterances of one VoxCeleb1 video, all in one split
SPLITS = {"train": 1, "dev": 2, "test": 3}  # as numbered in VoxCeleb1's iden_split.txt
PRETRAIN_NOISE_DB = (30.0, 45.0)  # a recording's noise: this far below the speech; noise cannot be reconstructed
PROBE_NOISE_DB = (8.0, 28.0)
# With these values logistic regression on the mean log mel spectrum names about 2 in 3 probe speakers right.

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed", "tree")
"""The ten words of Speech Commands that are to be told apart, and two others."""
TAKES = 2
EMOTIONS = {"01": (1.0, 0, (35, 65)), "03": (1.2, 14, (80, 99)), "04": (0.75, -14, (0, 15))}
"""RAVDESS's code -> pace, pitch and range of pitch: neutral, happy, sad."""
TAKES_OF_EMOTION = 8
COMMAND_SECONDS = 1.0

PRETRAIN_UTTERANCES = 13
PROBE_UTTERANCES = {"train": 10, "dev": 2, "test": 5}

FEMALE, MALE = "female", "male"
PRETRAIN_TIMBRES = (
    ("f1", FEMALE), ("m1", MALE), ("f2", FEMALE), ("m2", MALE), ("f3", FEMALE), ("m3", MALE),
    ("f4", FEMALE), ("m4", MALE), ("f5", FEMALE), ("m6", MALE), ("belinda", FEMALE), ("m7", MALE),
)  # fmt: skip
PROBE_TIMBRES = (("linda", FEMALE), ("Michael", MALE), ("steph", FEMALE), ("Diogo", MALE))
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-us-nyc", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")


def demo_librispeech() -> Path:
    """The `LibriSpeech` folder: train-demo/<speaker>/<chapter>/<speaker>-<chapter>-0000.flac, 24 speakers."""
    return cached_corpus("LibriSpeech", DEMO_VERSION, SPOKEN, _write_librispeech)


def demo_voxceleb1() -> Path:
    """The `VoxCeleb1` folder: wav/id10001/<video>/00001.wav and iden_split.txt, 16 speakers.

    None of them is in `demo_librispeech`, and no sentence is in two splits.
    """
    return cached_corpus("VoxCeleb1", DEMO_VERSION, SPOKEN, _write_voxceleb1)


def demo_labels() -> Path:
    """A CSV `path,label,split` over `demo_voxceleb1`, the label being the voice's gender; paths from its folder."""
    return demo_voxceleb1() / "gender.csv"


def demo_speech_commands() -> Path:
    """The `SpeechCommands` folder: WORD/SPEAKER_nohash_N.wav of twelve words and 16 speakers, and two noises.

    Speakers are named such that Speech Commands' rule puts twelve of them in train, two in dev and two in test.
    """
    return cached_corpus("SpeechCommands", DEMO_VERSION, SPOKEN, _write_speech_commands)


def demo_emotions() -> Path:
    """A folder in RAVDESS's layout: ten actors, neutral, happy (fast, high, lively) and sad (slow, low, flat)."""
    return cached_corpus("RAVDESS", DEMO_VERSION, SPOKEN, _write_emotions)


def demo_speakers(timbres: Sequence[tuple[str, str]], relatives: int) -> list[Speaker]:
    """`relatives` speakers a timbre, alike but for some pitch, pace and vocal tract length."""
    speakers = []
    for number, (timbre, gender) in enumerate(timbres):
        accent = ACCENTS[number % len(ACCENTS)]
        for relative in range(relatives):
            pitch, pace = 38 + 8 * relative, 182 + 8 * ((number + 2 * relative) % 4)
            formant_scale = 0.98 + 0.02 * ((2 * relative + relative // 2) % relatives)
            speakers.append(Speaker(accent, timbre, gender, pitch, pace, formant_scale))
    return speakers


def _write_librispeech(folder: Path) -> None:
    speakers = demo_speakers(PRETRAIN_TIMBRES, relatives=2)
    sentences = iter(demo_sentences(len(speakers) * PRETRAIN_UTTERANCES, seed=1))
    studio = Studio(seed=1, noise_db=PRETRAIN_NOISE_DB)
    with studio.espeak:
        for number, speaker in enumerate(speakers, start=101):
            chapter = 1000 + number
            for utterance in range(PRETRAIN_UTTERANCES):
                name = f"{number}-{chapter}-{utterance:04d}.flac"
                studio.record(next(sentences), speaker, folder / "train-demo" / f"{number}" / f"{chapter}" / name)


def _write_voxceleb1(folder: Path) -> None:
    speakers = demo_speakers(PROBE_TIMBRES, relatives=4)
    sentences = iter(demo_sentences(len(speakers) * sum(PROBE_UTTERANCES.values()), seed=2))
    studio = Studio(seed=2, noise_db=PROBE_NOISE_DB)
    with (
        studio.espeak,
        (folder / "iden_split.txt").open("w", encoding="utf-8") as split_list,
        (folder / "gender.csv").open("w", encoding="utf-8", newline="") as labels,
    ):
        table = csv.writer(labels)
        table.writerow(["path", "label", "split"])
        for number, speaker in enumerate(speakers, start=1):
            for split, path in _voxceleb1_names(f"id1{number:04d}"):
                studio.record(next(sentences), speaker, folder / "wav" / path)
                split_list.write(f"{SPLITS[split]} {path}\n")
                table.writerow([f"wav/{path}", speaker.gender, split])


def _write_speech_commands(folder: Path) -> None:
    studio = Studio(seed=3, noise_db=PROBE_NOISE_DB)
    speakers = demo_speakers(PROBE_TIMBRES, relatives=4)
    with studio.espeak:
        for number, speaker in enumerate(speakers):
            low, high = ((20, 101), (20, 101), (20, 101), (0, 10) if number % 8 == 3 else (10, 20))[number % 4]
            candidates = (f"{number:02d}{extra:04x}" for extra in itertools.count())
            name = next(each for each in candidates if low <= name_percentage(each) < high)
            for word in COMMANDS:
                for take in range(TAKES):
                    studio.record(word, speaker, folder / word / f"{name}_nohash_{take}.wav", COMMAND_SECONDS)
    draw = np.random.default_rng(4)
    (folder / "_background_noise_").mkdir()
    for name, smoothing in (("hiss", 1), ("hum", 40)):
        noise = np.convolve(draw.standard_normal(20 * SAMPLE_RATE), np.ones(smoothing) / smoothing, mode="same")
        noise = 0.05 * noise / noise.std()
        write_audio(folder / "_background_noise_" / f"{name}.wav", noise)


def _write_emotions(folder: Path) -> None:
    studio = Studio(seed=5, noise_db=PROBE_NOISE_DB)
    speakers = demo_speakers(PROBE_TIMBRES, relatives=3)[:10]
    sentences = iter(demo_sentences(len(speakers) * len(EMOTIONS) * TAKES_OF_EMOTION, seed=5))
    with studio.espeak:
        for actor, speaker in enumerate(speakers, start=1):
            for code, (pace, pitch, liveliness) in EMOTIONS.items():
                manner = dataclasses.replace(
                    speaker, words_per_minute=round(speaker.words_per_minute * pace), pitch=speaker.pitch + pitch
                )
                for take in range(1, TAKES_OF_EMOTION + 1):
                    name = f"03-01-{code}-01-{take:02d}-01-{actor:02d}.wav"
                    path = folder / f"Actor_{actor:02d}" / name
                    studio.record(next(sentences), manner, path, pitch_range=liveliness)


def _voxceleb1_names(speaker: str) -> Iterator[tuple[str, str]]:
    video = 0
    for split, count in PROBE_UTTERANCES.items():
        for utterance in range(count):
            video += utterance % VIDEO_SIZE == 0
            yield split, f"{speaker}/demovideo{video:02d}/{utterance % VIDEO_SIZE + 1:05d}.wav"
