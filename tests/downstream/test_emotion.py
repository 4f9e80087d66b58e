"""Emotion recognition: four corpora by their official names, and folds that share no speaker."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah import ROOT
from mynah.downstream.build import TaskOptions
from mynah.downstream.emotion.expert import DownstreamExpert
from mynah.downstream.interfaces import SPLITS, UpstreamInfo
from mynah.downstream.training import train
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "emotion" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)

NAMES = {
    "RAVDESS": [
        *(
            f"Actor_{actor:02d}/03-01-0{code}-01-01-01-{actor:02d}.wav"
            for actor in range(1, 11)
            for code in (1, 3, 8)
        ),
        "Actor_01/03-02-01-01-01-01-01.wav",  # sung, not spoken
    ],
    "CREMA-D": [f"AudioWAV/{1001 + actor}_DFA_{code}_XX.wav" for actor in range(6) for code in ("ANG", "SAD")],
    "EmoDB": [f"wav/{speaker:02d}a01{code}a.wav" for speaker in (3, 8, 9, 10, 11, 12) for code in "WTN"],
}
EXPECTED = {
    "RAVDESS": {"01": "neutral", "03": "happy", "08": "surprised"},
    "CREMA-D": {"ANG": "angry", "SAD": "sad"},
    "EmoDB": {"W": "angry", "T": "sad", "N": "neutral"},
}


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(3000, 0.1), 16000)


def build(folder: Path, *overrides: str) -> DownstreamExpert:
    config = load_config(
        DownstreamExpert.Config, files=[CONFIG], overrides=(f"datarc.file_path={folder}", *overrides)
    )
    return DownstreamExpert(UPSTREAM, config)


def parts_of(layout: str, name: str) -> tuple[str, str]:
    """(speaker, emotion's code) of a file, read by position rather than by a pattern."""
    stem = Path(name).stem
    if layout == "RAVDESS":
        return stem[18:20], stem[6:8]
    return (stem[:4], stem[9:12]) if layout == "CREMA-D" else (stem[:2], stem[5])


@pytest.mark.parametrize("layout", NAMES)
def test_every_speaker_is_tested_in_one_fold_and_never_in_two_splits(tmp_path, layout):
    for name in NAMES[layout]:
        write(tmp_path / name)
    tested = []
    for fold in range(1, 6):
        corpus = build(tmp_path, f"datarc.fold={fold}").corpus
        speakers = {split: {parts_of(layout, each.name)[0] for each, _ in corpus[split]} for split in SPLITS}
        assert all(speakers.values())
        assert not speakers["train"] & speakers["test"] and not speakers["train"] & speakers["dev"]
        assert not speakers["dev"] & speakers["test"]
        for split in SPLITS:
            for utterance, label in corpus[split]:
                assert label == EXPECTED[layout][parts_of(layout, utterance.name)[1]]
        assert sum(len(items) for items in corpus.values()) == len([n for n in NAMES[layout] if "03-02" not in n])
        tested += sorted(speakers["test"])
    assert len(tested) == len(set(tested)) == len({parts_of(layout, name)[0] for name in NAMES[layout]})


def test_iemocap_takes_its_labels_from_the_evaluations_and_a_session_a_fold(tmp_path):
    rows = {"neu": "neutral", "exc": "happy", "hap": "happy", "ang": "angry", "sad": "sad", "fru": None, "xxx": None}
    for session in range(1, 6):
        dialog = f"Ses0{session}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number in range(30):
            code = list(rows)[number % len(rows)]
            lines += [
                f"[{number}.2901 - {number + 2}.2357]\t{dialog}_F{number:03d}\t{code}\t[2.5000, 2.5000, 2.5000]"
            ]
            lines += ["C-E2:\tNeutral;\t()", ""]
            write(tmp_path / f"Session{session}" / "sentences" / "wav" / dialog / f"{dialog}_F{number:03d}.wav")
        path = tmp_path / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines))
        write(tmp_path / f"Session{session}" / "dialog" / "wav" / f"{dialog}.wav")
    usable = sum(rows[list(rows)[number % len(rows)]] is not None for number in range(30))
    for fold in (1, 5):
        expert = build(tmp_path, f"datarc.fold={fold}")
        assert expert.labels == ["angry", "happy", "neutral", "sad"]
        assert len(expert.corpus["test"]) == usable
        assert {each.name.split("/")[0] for each, _ in expert.corpus["test"]} == {f"Session{fold}"}
        assert len(expert.corpus["train"]) + len(expert.corpus["dev"]) == 4 * usable
        assert 0 < len(expert.corpus["dev"]) < 0.4 * 4 * usable
        for utterance, label in expert.corpus["train"]:
            assert label == rows[list(rows)[int(Path(utterance.name).stem[-3:]) % len(rows)]]


def test_recall_counts_every_emotion_alike(tmp_path):
    for name in NAMES["CREMA-D"]:
        write(tmp_path / name)
    records = {"label": [0, 0, 0, 1], "correct": [True, True, False, True], "top5": [True] * 4, "loss": [0.1] * 4}
    metrics = build(tmp_path).log_records("dev", records)
    assert metrics["accuracy"] == 0.75 and metrics["unweighted_recall"] == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("names", "said"),
    [(["a.wav", "b.wav"], "none of 2 files is called as in RAVDESS"), (NAMES["CREMA-D"][:4], "has 2 speakers")],
)
def test_other_folders_are_refused(tmp_path, names, said):
    for name in names:
        write(tmp_path / name)
    with pytest.raises(UserError, match=said):
        build(tmp_path)


def test_the_demo_learns_how_voices_speak_that_it_has_not_heard(demo_cache, tmp_path):
    fast = ["trainer.enable_progress_bar=false", "model.pooling=statistics"]
    metrics = train(TaskOptions(root=tmp_path, name="em", upstream="fbank", downstream="emotion", overrides=fast))
    assert metrics["test"]["accuracy"] > 0.45 and metrics["test"]["unweighted_recall"] > 0.45  # by chance a third
    assert torch.load(tmp_path / "em" / "checkpoints" / "best.ckpt", weights_only=True)["mynah"]["task_state"] == {
        "emotions": ["happy", "neutral", "sad"]
    }
