"""A demo corpus with phones and their times, laid out on disk as LibriSpeech: eSpeak NG tells when it says what."""

import csv
import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mynah.utility.audio.alignment import Segment
from mynah.utility.demo.cached_corpus import cached_corpus
from mynah.utility.demo.espeak import Espeak, Phoneme, VoiceSettings
from mynah.utility.demo.sentences import demo_sentences
from mynah.utility.demo.speech import DEMO_VERSION, PROBE_TIMBRES, SPOKEN, demo_speakers
from mynah.utility.demo.studio import PAUSE, Studio

NAME = "LibriSpeechPhones"
ACCENT = "en-us"  # one for all, so that a word has one pronunciation
SPLITS = {"train": (12, 20), "dev": (2, 15), "test": (2, 15)}
"""Speakers and the sentences of each."""
NOISE_DB = (20.0, 40.0)
PAUSES = (0.1, 0.4)  # seconds before and after a sentence
SHORTEST_CLOSURE = 110  # samples of digital silence that count as one: 5 ms at eSpeak's rate
CLOSED = ("P", "T", "K", "CH", "B", "D", "G", "JH")

PHONES = {
    "AA": "0 A: A@", "AE": "a aa", "AH": "V @ @2 a#", "AO": "O: O2 O@ o@", "AW": "aU", "AY": "aI aI@ aI3",
    "EH": "E", "EA": "e@", "ER": "3 3:", "EY": "eI", "IH": "I I2 I#", "IA": "i@ i@3", "IY": "i i:", "OW": "oU",
    "OY": "OI", "UH": "U", "UA": "U@", "UW": "u:", "EL": "@L",
    "B": "b", "CH": "tS", "D": "d", "DH": "D", "F": "f", "G": "g", "HH": "h", "JH": "dZ", "K": "k", "L": "l",
    "M": "m", "N": "n n-", "NG": "N", "P": "p", "R": "r r-", "S": "s", "SH": "S", "T": "t t# t2 ?", "TH": "T",
    "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "Z", PAUSE: "_ _: _| _::",
}  # fmt: skip
"""The labels, ARPAbet's with BEEP's IA, EA and UA and TIMIT's EL, and what eSpeak calls each of them."""
LABELS = {name: label for label, names in PHONES.items() for name in names.split()}
INSIDE = (";", "_!")
"""What belongs to the phone before: its palatal colour, its aspiration."""


def demo_phones() -> Path:
    """The `LibriSpeechPhones` folder: SPLIT-demo/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac and *.trans.txt.

    `utterances.csv` has the columns path, split, speaker, text (LibriSpeech's: capitals), phones (separated by
    spaces, without pauses) and alignment, the path of a table of lines `start end phone` in seconds that covers the
    recording. Paths are relative to the folder. `lexicon.txt` has a line `WORD<tab>PH PH ...` for each word,
    as it is said alone. No speaker and no sentence is in two splits; no speaker is in `demo_librispeech`.
    """
    return cached_corpus(NAME, DEMO_VERSION, SPOKEN, _write_phones)


def demo_activity() -> Path:
    """A CSV `path,alignment,split` over `demo_phones`; an alignment has the label `speech` where anything is said."""
    return demo_phones() / "activity.csv"


def _write_phones(folder: Path) -> None:
    voices = (dataclasses.replace(each, accent=ACCENT) for each in demo_speakers(PROBE_TIMBRES, relatives=4))
    speakers = enumerate(voices, start=201)
    sentences = iter(demo_sentences(sum(count * each for count, each in SPLITS.values()), seed=6))
    studio = Studio(seed=6, noise_db=NOISE_DB)
    words: set[str] = set()
    with (
        studio.espeak,
        (folder / "utterances.csv").open("w", encoding="utf-8", newline="") as file,
        (folder / "activity.csv").open("w", encoding="utf-8", newline="") as activity_file,
    ):
        table, activity = csv.writer(file), csv.writer(activity_file)
        activity.writerow(["path", "alignment", "split"])
        table.writerow(["path", "split", "speaker", "text", "phones", "alignment"])
        for split, (count, each) in SPLITS.items():
            for number, speaker in (next(speakers) for _ in range(count)):
                chapter = Path(f"{split}-demo", f"{number}", f"{2000 + number}")
                lines = []
                for index in range(each):
                    sentence = next(sentences)
                    stem = f"{number}-{2000 + number}-{index:04d}"
                    path = chapter / f"{stem}.flac"
                    segments = studio.record_aligned(sentence, speaker, folder / path, PAUSES, phone_starts)
                    alignment = write_table(folder, Path("alignments") / f"{stem}.txt", segments)
                    text = " ".join(re.findall(r"[A-Z']+", sentence.upper()))
                    phones = " ".join(segment.label for segment in segments if segment.label != PAUSE)
                    table.writerow([path.as_posix(), split, number, text, phones, alignment])
                    spoken = write_table(folder, Path("activity") / f"{stem}.txt", _activity(segments))
                    activity.writerow([path.as_posix(), spoken, split])
                    lines.append(f"{stem} {text}\n")
                    words.update(text.split())
                transcripts = folder / chapter / f"{number}-{2000 + number}.trans.txt"
                transcripts.write_text("".join(lines), encoding="utf-8")
        lexicon = [f"{word}\t{' '.join(_said_alone(studio.espeak, word))}\n" for word in sorted(words)]
    (folder / "lexicon.txt").write_text("".join(lexicon), encoding="utf-8")


def write_table(folder: Path, path: Path, segments: Sequence[Segment]) -> str:
    """Lines `start end label`, seconds; returns the path."""
    lines = [f"{segment.start:.4f} {segment.end:.4f} {segment.label}\n" for segment in segments]
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text("".join(lines), encoding="utf-8")
    return path.as_posix()


def phone_starts(spoken: np.ndarray, phonemes: Sequence[Phoneme]) -> list[tuple[int, str]]:
    """(T,) what eSpeak said and its phonemes -> (first sample, label) of each phone and pause, in order.

    eSpeak dates a stop from its burst, and the first sound after a pause 12 ms late. Its silence is
    digital, so that both are seen: a stop has the closure before it, and a pause ends with the first sample.
    """
    starts: list[tuple[int, str]] = []
    before, last = PAUSE, 0
    for phoneme in phonemes:
        if phoneme.name in INSIDE:
            continue
        label, start = LABELS[phoneme.name], phoneme.start
        begin, end = _longest_silence(spoken[last:start])
        if before == PAUSE and label != PAUSE:
            start = last + end
        elif label in CLOSED and end - begin >= SHORTEST_CLOSURE:
            start = last + begin
        if not (before == label == PAUSE):
            starts.append((start, label))
        before, last = label, phoneme.start
    ends = [*(start for start, _ in starts[1:]), len(spoken)]
    return [part for part, end in zip(starts, ends, strict=True) if part[0] < end]


def _activity(segments: Sequence[Segment]) -> list[Segment]:
    """From the first to the last phone between two pauses, as one segment."""
    groups = itertools.groupby(segments, key=lambda segment: segment.label == PAUSE)
    parts = [list(group) for is_pause, group in groups if not is_pause]
    return [Segment(part[0].start, part[-1].end, "speech") for part in parts]


def _longest_silence(wav: np.ndarray) -> tuple[int, int]:
    """First sample, and first sample after, of the longest run of zeros; (0, 0) for none."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], wav == 0, [0]))))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return max(runs, key=lambda run: run[1] - run[0], default=(0, 0))


def _said_alone(espeak: Espeak, word: str) -> list[str]:
    espeak.speak(word.lower(), VoiceSettings(ACCENT))
    labels = [LABELS[phoneme.name] for phoneme in espeak.phonemes if phoneme.name not in INSIDE]
    return [label for label in labels if label != PAUSE]
