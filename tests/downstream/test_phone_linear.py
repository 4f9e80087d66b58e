"""phone_linear: which phones of which files go to which split, by hand-made corpora; and the probe itself."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.metrics import accuracy_score

from mynah import ROOT
from mynah.downstream.interfaces import SPLITS, SignalInfo, UpstreamInfo
from mynah.downstream.model import DownstreamModel, describe_upstream
from mynah.downstream.phone_linear.dataset import held_out
from mynah.downstream.phone_linear.expert import DownstreamExpert
from mynah.plugins import build_upstream, get_plugin
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "phone_linear" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160, first_center=200.0)


def build(*overrides: str, state: dict | None = None) -> DownstreamExpert:
    config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=overrides)
    torch.manual_seed(0)
    return DownstreamExpert(UPSTREAM, config, state)


def split_of(expert: DownstreamExpert) -> dict[str, str]:
    return {Path(utterance.path).stem: split for split in SPLITS for utterance, _ in expert.corpus[split]}


@pytest.fixture
def corpus(tmp_path) -> tuple[Path, Path]:
    """20 files of 0.5 s of 10 speakers, and a folder of tables beside them."""
    audio, tables = tmp_path / "audio", tmp_path / "tables"
    audio.mkdir()
    tables.mkdir()
    for speaker in range(10):
        for take in range(2):
            soundfile.write(audio / f"s{speaker}-{take}.wav", np.full(8000, 0.1), 16000)
            (tables / f"s{speaker}-{take}.txt").write_text("0 0.2 SIL\n0.2 0.3 AH0\n0.3 0.5 AH1\n")
    return audio, tables


def at(corpus: tuple[Path, Path]) -> tuple[str, str]:
    return f"datarc.file_path={corpus[0]}", f"datarc.alignments={corpus[1]}"


@pytest.mark.parametrize(
    "options, expected",
    [
        ((), [("SIL", 0.2), ("AH0", 0.3), ("AH1", 0.5)]),
        (("datarc.strip_stress=true", "datarc.ignored=[SIL]"), [("AH", 0.3), ("AH", 0.5)]),
        (("datarc.phones={names}",), [("pause", 0.2), ("AH1", 0.5)]),
        (("datarc.phones={listed}",), [("pause", 0.2)]),
    ],
)
def test_labels_are_renamed_stripped_and_left_out(corpus, tmp_path, options, expected):
    (tmp_path / "names.txt").write_text("SIL pause\nAH0\n")
    (tmp_path / "listed.txt").write_text("SIL pause\nB B\n*\n")
    places = {"names": tmp_path / "names.txt", "listed": tmp_path / "listed.txt"}
    options = [option.format(**places) for option in options]
    for file in corpus[1].iterdir():  # a second phone, so that there are two to tell apart
        if file.stem.endswith("-1"):
            file.write_text("0 0.1 B\n")
    expert = build(*at(corpus), *options)
    segments = next(found for split in SPLITS for one, found in expert.corpus[split] if one.path.endswith("s0-0.wav"))
    assert [(segment.label, segment.end) for segment in segments] == expected
    assert expert.labels == sorted({label for label, _ in expected} | {"B"})


def test_whole_speakers_are_held_out_and_always_the_same(corpus):
    splits = split_of(build(*at(corpus), "datarc.speaker='(s.)-'"))
    assert len(splits) == 20 and set(splits.values()) == set(SPLITS)
    for name, split in splits.items():
        assert splits[name.replace("-1", "-0")] == split
    assert sum(split == "dev" for split in splits.values()) == sum(split == "test" for split in splits.values()) == 2
    assert split_of(build(*at(corpus), "datarc.speaker='(s.)-'")) == splits


def test_held_out_shares_are_a_tenth_and_one_at_least():
    for count in (3, 10, 25, 1000):
        shares = list(held_out(f"n{index}" for index in range(count)).values())
        tenth = -(-count // 10)
        assert [shares.count(split) for split in SPLITS] == [count - 2 * tenth, tenth, tenth]
    with pytest.raises(UserError, match="2 speakers or utterances cannot be divided"):
        held_out(["a", "b"])


def test_published_lists_divide_the_training_list_after_a_shuffle_with_seed_1337(corpus, tmp_path):
    names = sorted(path.stem for path in corpus[0].iterdir())
    (tmp_path / "train_split.txt").write_text("".join(f"{name}\n" for name in names[:16]))
    (tmp_path / "test_split.txt").write_text("".join(f"{name}\n" for name in names[16:18]))
    (tmp_path / "converted_aligned_phones.txt").write_text(
        "".join(f"{name} {' '.join(['3'] * 20 + ['7'] * 30)}\n" for name in names)
    )
    expert = build(
        f"datarc.file_path={corpus[0]}",
        f"datarc.alignments={tmp_path / 'converted_aligned_phones.txt'}",
        f"datarc.train_list={tmp_path / 'train_split.txt'}",
        f"datarc.test_list={tmp_path / 'test_split.txt'}",
    )
    lines = (tmp_path / "train_split.txt").read_text().splitlines(keepends=True)
    random.seed(1337)
    random.shuffle(lines)
    expected = dict.fromkeys((line.strip() for line in lines[:14]), "train")
    expected |= dict.fromkeys((line.strip() for line in lines[14:]), "dev") | dict.fromkeys(names[16:18], "test")
    assert split_of(expert) == expected
    assert expert.labels == ["3", "7"]
    label = expert.get_dataset("test")[0]["label"]
    assert label[:48].tolist() == [0 if 200 + 160 * position < 3200 else 1 for position in range(48)]


def test_folders_named_as_splits_are_the_splits(tmp_path):
    for split, name in (("train-clean-100", "a"), ("dev-clean", "b"), ("test-clean", "c")):
        (tmp_path / "LibriSpeech" / split / "1").mkdir(parents=True)
        soundfile.write(tmp_path / "LibriSpeech" / split / "1" / f"{name}.flac", np.zeros(8000), 16000)
    (tmp_path / "all.ctm").write_text("".join(f"{name} 1 0 0.2 AH\n{name} 1 0.2 0.2 B\n" for name in "abc"))
    expert = build(f"datarc.file_path={tmp_path / 'LibriSpeech'}", f"datarc.alignments={tmp_path / 'all.ctm'}")
    assert split_of(expert) == {"a": "train", "b": "dev", "c": "test"}


def test_a_table_has_its_own_splits_with_a_column_of_alignments_or_with_a_folder(corpus, tmp_path):
    rows = [(f"audio/s{speaker}-0.wav", SPLITS[speaker % 3], f"tables/s{speaker}-1.txt") for speaker in range(6)]
    table = tmp_path / "data.csv"
    table.write_text("path,split,alignment\n" + "".join(f"{','.join(row)}\n" for row in rows))
    (corpus[1] / "s0-1.txt").write_text("0 0.5 X\n")
    expected = {f"s{speaker}-0": SPLITS[speaker % 3] for speaker in range(6)}
    expert = build(f"datarc.file_path={table}")
    assert split_of(expert) == expected and "X" in expert.labels
    expert = build(f"datarc.file_path={table}", f"datarc.alignments={corpus[1]}")
    assert split_of(expert) == expected and "X" not in expert.labels


@pytest.mark.parametrize(
    "options, message",
    [
        (("datarc.alignments=",), r"datarc\.alignments is needed where datarc\.file_path is a folder"),
        (("datarc.speaker='(x)'",), "finds no speaker in s0-0.wav"),
        (("datarc.phones={names}",), r"names\.txt, line 2: the label A has more than one phone"),
        (("datarc.alignments={other}",), "has no alignment for any of the 20 audio files of .*, such as s0-0"),
        (("datarc.alignments={samples}",), r"s3-1\.wav is 0\.50 s long, but its alignment ends at 8000\.00 s"),
    ],
)
def test_mistakes_are_told_in_a_line(corpus, tmp_path, options, message):
    (tmp_path / "names.txt").write_text("B b\nA a b\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").write_text("0 1 a\n")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "s3-1.txt").write_text("0 3200 SIL\n3200 8000 AH0\n")
    places = {"names": tmp_path / "names.txt", "other": tmp_path / "other", "samples": tmp_path / "samples"}
    with pytest.raises(UserError, match=message):
        build(*at(corpus), *(option.format(**places) for option in options))


@pytest.mark.parametrize("options", [("datarc.speaker='('",), ("datarc.speaker=s",), ("datarc.train_list=a",)])
def test_options_that_cannot_be_meant_are_refused(options):
    with pytest.raises(UserError, match=r"speaker|train_list"):
        load_config(DownstreamExpert.Config, files=[CONFIG], overrides=options)


def test_accuracy_over_a_split_is_sklearns_on_all_labelled_frames(corpus):
    expert, records = build(*at(corpus), "datarc.ignored=[AH1]"), {}
    truth, found = [], []
    for split in ("dev", "test"):
        for item in map(expert.get_dataset(split).__getitem__, range(2)):
            features = torch.randn(1, 48, 8)
            expert("test", features, torch.tensor([48]), [item["label"]], records, [item["name"]])
            kept = item["label"][:48] >= 0
            truth += item["label"][:48][kept].tolist()
            found += expert.model(features)[0].argmax(-1)[kept].tolist()
    assert 0 < len(truth) < 4 * 48
    assert expert.log_records("test", records)["accuracy"] == pytest.approx(accuracy_score(truth, found))


def test_rebuilt_expert_needs_no_data_and_draws_what_it_predicts(corpus, tmp_path):
    expert = build(*at(corpus))
    rebuilt = build("datarc.file_path=/gone", state=json.loads(json.dumps(expert.state())))
    rebuilt.load_state_dict(expert.state_dict(), strict=True)
    features, signals = torch.randn(1, 48, 8), [SignalInfo("a.wav", 8000, UPSTREAM.grid.times(48).tolist())]
    assert rebuilt.predict(features, torch.tensor([48]), signals) == expert.predict(
        features, torch.tensor([48]), signals
    )
    rebuilt.draw_prediction(features, torch.tensor([48]), torch.zeros(8000), tmp_path / "pictures" / "a.png")
    assert (tmp_path / "pictures" / "a.png").stat().st_size > 5000


@pytest.mark.parametrize("begin", [0, 4000])
def test_the_picture_of_a_prediction_in_windows_has_its_segments(corpus, tmp_path, monkeypatch, begin):
    upstream = build_upstream(get_plugin("upstream", "mel"))
    config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=at(corpus))
    model = DownstreamModel(upstream, DownstreamExpert(describe_upstream(upstream), config), config.features, False)
    drawn = []
    monkeypatch.setattr("mynah.downstream.framewise.draw_frames", lambda panels, labels, path: drawn.extend(panels))
    signal = torch.randn(8000, generator=torch.Generator().manual_seed(0))
    windows = [(part, begin + 500 * index) for index, part in enumerate(signal.split(500))]
    result = model.predict(windows, "a.wav", begin + 8000, tmp_path / "a.png")
    labels = model.expert.labels
    shown = [(labels[label], start, end) for start, end, label in drawn[0].strips["predicted"]]
    own = [(one["label"], one["start"] - begin / 16000, one["end"] - begin / 16000) for one in result["segments"]]
    own[0] = (own[0][0], 0.0, own[0][2])  # silence that was cut off is no part of the picture
    assert len(own) > 3
    for (label, *times), (expected, *theirs) in zip(shown, own, strict=True):
        assert label == expected and times == pytest.approx(theirs, abs=2e-4)


def test_the_demo_has_its_phones_in_every_split(demo_cache):
    config = load_config(DownstreamExpert.Config, files=[CONFIG], demo=True)
    DownstreamExpert.use_demo_data(config)
    expert = DownstreamExpert(UPSTREAM, config)
    assert 35 < len(expert.labels) < 45 and "SIL" not in expert.labels
    assert all(expert.corpus[split] for split in SPLITS)
