"""utility/demo/phones.py: what the tables say against the sound, read with soundfile alone."""

import csv
import re
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mynah.utility.demo.espeak import Espeak, Phoneme, VoiceSettings
from mynah.utility.demo.phones import LABELS, PHONES, demo_phones, phone_starts
from mynah.utility.demo.studio import PAUSE


@pytest.fixture
def corpus(demo_cache) -> Path:
    return demo_phones()


def rows_of(corpus: Path) -> list[dict[str, str]]:
    with (corpus / "utterances.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def segments_of(path: Path) -> list[tuple[float, float, str]]:
    lines = (line.split(" ") for line in path.read_text().splitlines())
    return [(float(start), float(end), label) for start, end, label in lines]


def test_layout_is_librispeechs_and_the_table_names_every_file_once(corpus):
    rows = rows_of(corpus)
    there = sorted(path.relative_to(corpus).as_posix() for path in corpus.rglob("*.flac"))
    assert sorted(row["path"] for row in rows) == there
    for row in rows:
        match = re.fullmatch(r"(train|dev|test)-demo/(\d+)/(\d+)/\2-\3-\d{4}\.flac", row["path"])
        assert match and match[1] == row["split"] and match[2] == row["speaker"]
    transcripts = [line for path in corpus.rglob("*.trans.txt") for line in path.read_text().splitlines()]
    assert sorted(transcripts) == sorted(f"{Path(row['path']).stem} {row['text']}" for row in rows)


@pytest.mark.parametrize("column", ["speaker", "text"])
def test_no_speaker_and_no_sentence_is_in_two_splits(corpus, column):
    found = {
        split: {row[column] for row in rows_of(corpus) if row["split"] == split} for split in ("train", "test", "dev")
    }
    assert all(found.values())
    assert all(a.isdisjoint(b) for a, b in combinations(found.values(), 2))


def test_segments_cover_each_recording_and_say_the_phones_of_the_table(corpus):
    for row in rows_of(corpus):
        segments, seconds = segments_of(corpus / row["alignment"]), soundfile.info(corpus / row["path"]).duration
        assert segments[0][0] == 0 and segments[-1][1] == pytest.approx(seconds, abs=1e-4)
        assert all(start < end for start, end, _ in segments)
        assert all(one[1] == other[0] for one, other in pairwise(segments))
        assert [label for _, _, label in segments if label != PAUSE] == row["phones"].split()
        assert segments[0][2] == segments[-1][2] == PAUSE
        assert 2 < seconds < 7


def test_lexicon_has_every_word_once_and_no_other_phones(corpus):
    lines = [line.split("\t") for line in (corpus / "lexicon.txt").read_text().splitlines()]
    words = {word for row in rows_of(corpus) for word in row["text"].split()}
    assert [word for word, _ in lines] == sorted(words)
    assert {phone for _, phones in lines for phone in phones.split()} <= PHONES.keys() - {PAUSE}
    assert dict(lines)["FOX"] == "F AA K S"


def test_times_follow_the_sound_to_the_end_of_every_utterance(corpus):
    """Vowels are what is loud from 600 to 3000 Hz; with a wrong rate their labels would be up to 100 ms off."""
    for row in rows_of(corpus)[::9]:
        wav, rate = soundfile.read(corpus / row["path"])
        hop = rate // 200
        frames = np.lib.stride_tricks.sliding_window_view(wav, 160)[::hop]
        level = np.log(np.abs(np.fft.rfft(frames * np.hanning(160)))[:, 6:30].sum(1))
        times = (80 + hop * np.arange(len(frames))) / rate
        vowel = np.zeros(len(frames))
        for start, end, label in segments_of(corpus / row["alignment"]):
            vowel[(times >= start) & (times < end)] = label[0] in "AEIOU"
        late = slice(len(frames) // 2, len(frames) - 20)
        shifts = range(-20, 21)
        fits = [np.corrcoef(level[late], np.roll(vowel, shift)[late])[0, 1] for shift in shifts]
        assert abs(shifts[int(np.argmax(fits))]) <= 4, row["path"]  # 20 ms


def test_pauses_are_quiet_and_the_rest_is_not(corpus):
    for row in rows_of(corpus)[::9]:
        wav, rate = soundfile.read(corpus / row["path"])
        segments = segments_of(corpus / row["alignment"])
        levels = {
            quiet: np.median(
                [
                    np.sqrt(np.mean(wav[round((start + 0.01) * rate) : round((end - 0.01) * rate)] ** 2))
                    for start, end, label in segments
                    if (label == PAUSE) == quiet and end - start > 0.04
                ]
            )
            for quiet in (True, False)
        }
        assert levels[False] > 3 * levels[True], row["path"]


def test_a_closure_is_the_stops_and_a_pause_ends_with_the_first_sample():
    sound, silence = np.ones(1000), np.zeros(1000)
    spoken = np.concatenate([silence[:300], sound, silence[:500], sound, silence])
    phonemes = [
        Phoneme(564, "s"),  # 264 samples late
        Phoneme(900, ";"),  # colours the s
        Phoneme(1850, "t"),  # 50 samples after its burst, 550 after the closure began
        Phoneme(2300, "aI"),
        Phoneme(2800, "_:"),
        Phoneme(2900, "_"),
    ]
    assert phone_starts(spoken, phonemes) == [(300, "S"), (1300, "T"), (2300, "AY"), (2800, PAUSE)]


def test_every_name_has_one_label():
    names = [name for names in PHONES.values() for name in names.split()]
    assert len(names) == len(set(names)) == len(LABELS)


def test_phonemes_are_those_of_the_last_text_alone():
    with Espeak() as synthesizer:
        synthesizer.speak("Seven silver lanterns.", VoiceSettings("en-us"))
        wav = synthesizer.speak("Fish.", VoiceSettings("en-us"))
        names = [phoneme.name for phoneme in synthesizer.phonemes]
        starts = [phoneme.start for phoneme in synthesizer.phonemes]
    assert names[:3] == ["f", "I", "S"]
    assert starts == sorted(starts) and starts[-1] <= len(wav)
