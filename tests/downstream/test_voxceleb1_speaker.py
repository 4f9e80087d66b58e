"""Speaker identification: who is in which split, the head, its predictions and its report."""

import csv
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah import ROOT
from mynah.downstream.classification import Classifier, ClassifierConfig
from mynah.downstream.interfaces import SPLITS, UpstreamInfo
from mynah.downstream.voxceleb1_speaker.dataset import (
    SpeakerDataConfig,
    read_corpus,
    read_split_list,
    split_by_speaker,
)
from mynah.downstream.voxceleb1_speaker.expert import DownstreamExpert
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError
from mynah.utility.nn.pooling import POOLINGS

CONFIG = ROOT / "downstream" / "voxceleb1_speaker" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)
LIST = """1 id10001/videoA/00001.wav
1 id10002/videoB/00001.wav
2 id10001/videoA/00002.wav

3 id10002/videoB/00002.wav
3 id10001/videoC/00001.wav
"""


def write_wav(path: Path, seconds: float = 0.3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(str(path))).uniform(-0.5, 0.5, int(16000 * seconds))
    soundfile.write(path, noise, 16000)


def write_listed(root: Path, layout: dict[str, str], leave_out: tuple[str, ...] = ()) -> Path:
    """VoxCeleb1 with LIST beside it; layout: {speaker: folder below root that holds the speaker's}."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "iden_split.txt").write_text(LIST)
    for name in read_split_list(root / "iden_split.txt"):
        if name not in leave_out:
            write_wav(root / layout[name[:7]] / name)
    return root


def write_speakers(root: Path, counts: dict[str, int], seconds: float = 0.3) -> Path:
    for speaker, count in counts.items():
        for number in range(count):
            write_wav(root / speaker / "chapter" / f"{number:04d}.wav", seconds)
    return root


def build(folder: Path, *overrides: str, state: dict | None = None) -> DownstreamExpert:
    config = load_config(
        DownstreamExpert.Config, files=[CONFIG], overrides=[f"datarc.file_path={folder}", *overrides]
    )
    torch.manual_seed(0)
    return DownstreamExpert(UPSTREAM, config, state)


@pytest.mark.parametrize(
    "layout",
    [
        {"id10001": "dev/wav", "id10002": "test/wav"},
        {"id10001": "wav", "id10002": "wav"},
        {"id10001": ".", "id10002": "."},
    ],
)
def test_official_layouts_follow_the_list(layout, tmp_path):
    corpus = read_corpus(SpeakerDataConfig(file_path=str(write_listed(tmp_path, layout))))
    assert corpus.speakers == ["id10001", "id10002"]
    names = {split: [Path(each.path).parts[-3:] for each, _ in corpus.utterances[split]] for split in SPLITS}
    assert names == {
        "train": [("id10001", "videoA", "00001.wav"), ("id10002", "videoB", "00001.wav")],
        "dev": [("id10001", "videoA", "00002.wav")],
        "test": [("id10002", "videoB", "00002.wav"), ("id10001", "videoC", "00001.wav")],
    }
    for members in corpus.utterances.values():
        assert all(speaker in Path(utterance.path).parts for utterance, speaker in members)


def test_list_may_lie_beside_the_folder_or_anywhere(tmp_path):
    root = write_listed(tmp_path / "corpus", {"id10001": "wav", "id10002": "wav"})
    beside = read_corpus(SpeakerDataConfig(file_path=str(root / "wav")))
    (root / "iden_split.txt").rename(tmp_path / "elsewhere.txt")
    given = read_corpus(SpeakerDataConfig(file_path=str(root), split_list=str(tmp_path / "elsewhere.txt")))
    assert beside == given and len(given.utterances["train"]) == 2


def test_missing_files_are_counted_with_the_covered_share(tmp_path, caplog):
    layout = {"id10001": "wav", "id10002": "wav"}
    missing = ("id10002/videoB/00001.wav", "id10002/videoB/00002.wav")
    root = write_listed(tmp_path, layout, leave_out=missing)
    with caplog.at_level(logging.WARNING, logger="mynah"):
        corpus = read_corpus(SpeakerDataConfig(file_path=str(root)))
    assert (
        "2 of the 5 files" in caplog.text and "60.00 %" in caplog.text and "id10002/videoB/00001.wav" in caplog.text
    )
    assert "1 speakers have nothing to train on" in caplog.text
    assert corpus.speakers == ["id10001", "id10002"]  # those of the list, whatever is on the disk
    assert len(corpus.utterances["test"]) == 1


def test_complete_corpus_gives_no_warning(tmp_path, caplog):
    root = write_listed(tmp_path, {"id10001": "wav", "id10002": "wav"})
    with caplog.at_level(logging.WARNING, logger="mynah"):
        read_corpus(SpeakerDataConfig(file_path=str(root)))
    assert not caplog.records


def test_list_of_another_corpus_is_refused(tmp_path):
    root = write_speakers(tmp_path, {"anna": 3, "ben": 3})
    (root / "iden_split.txt").write_text(LIST)
    with pytest.raises(UserError, match=r"none of the 5 files of .*iden_split.txt.*id10001/videoA/00001.wav"):
        read_corpus(SpeakerDataConfig(file_path=str(root)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 id10001/a/00001.wav\n4 id10001/a/00002.wav\n", "line 2: expected '1', '2' or '3'"),
        ("1\n", "line 1: expected"),
        ("id10001/a/00001.wav\n", "line 1: expected"),
        ("1 id10001/a/00001.wav\n2 id10001/a/00001.wav\n", "line 2: .* listed twice"),
    ],
)
def test_malformed_lists_are_refused_with_their_line(text, message, tmp_path):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_split_list(tmp_path / "list.txt")


def test_split_list_that_does_not_exist_is_named(tmp_path):
    root = write_speakers(tmp_path, {"anna": 3, "ben": 3})
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        read_corpus(SpeakerDataConfig(file_path=str(root), split_list=str(tmp_path / "nowhere.txt")))


def test_speaker_folders_are_split_80_10_10_by_utterance():
    names = [f"{speaker}/c/{number}.flac" for speaker in ("anna", "ben", "cem") for number in range(40)]
    partition = split_by_speaker(names)
    assert set(partition) == set(names)
    for speaker in ("anna", "ben", "cem"):
        counts = Counter(split for name, split in partition.items() if name.startswith(speaker))
        assert counts == {"train": 32, "dev": 4, "test": 4}
    assert [name for name in names if partition[name] == "test"] != names[::10]  # not simply the first ones
    assert split_by_speaker(reversed(names)) == partition  # whatever order the disk gives


def test_small_speakers_reach_every_split_from_three_utterances_on():
    assert len(split_by_speaker(f"a/\udcff{number}.wav" for number in range(9))) == 9  # names that are no UTF-8
    partition = split_by_speaker([f"{count}/{number}.wav" for count in (1, 2, 3, 4) for number in range(count)])
    splits = {
        count: Counter(split for name, split in partition.items() if name[0] == str(count)) for count in range(1, 5)
    }
    assert splits[1] == {"train": 1} and splits[2] == {"train": 2}
    assert splits[3] == {"train": 1, "dev": 1, "test": 1} and splits[4] == {"train": 2, "dev": 1, "test": 1}


def test_a_new_file_moves_at_most_three_others():
    names = [f"anna/{number}.wav" for number in range(34)]
    before = split_by_speaker(names)
    for new in range(100, 120):
        after = split_by_speaker([*names, f"anna/{new}.wav"])
        assert sum(after[name] != before[name] for name in names) <= 3


def test_files_outside_speaker_folders_are_no_speakers(tmp_path):
    root = write_speakers(tmp_path, {"anna": 3, "ben": 3})
    write_wav(root / "jingle.wav")
    assert read_corpus(SpeakerDataConfig(file_path=str(root))).speakers == ["anna", "ben"]


def test_one_speaker_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least two speakers are needed, found 1"):
        read_corpus(SpeakerDataConfig(file_path=str(write_speakers(tmp_path, {"anna": 3}))))


def test_real_speaker_folders(shared_data):
    corpus = read_corpus(SpeakerDataConfig(file_path=str(shared_data / "LibriSpeech" / "test-other")))
    assert len(corpus.speakers) == 10
    assert {split: len(members) for split, members in corpus.utterances.items()} == {
        "train": 80,
        "dev": 10,
        "test": 10,
    }


def test_items_are_random_crops_for_training_and_whole_utterances_otherwise(tmp_path):
    expert = build(write_speakers(tmp_path, {"anna": 4, "ben": 4}), "datarc.max_timestep=2000")
    train, dev = expert.get_dataset("train"), expert.get_dataset("dev")
    assert train.lengths == [2000] * 4 and dev.lengths == [4800] * 2
    first, again, other = train[0, 1], train[0, 1], train[1, 1]
    assert first["signal"].shape == (2000,) and dev[0, 0]["signal"].shape == (4800,)
    assert torch.equal(first["signal"], again["signal"]) and not torch.equal(first["signal"], other["signal"])
    for dataset in (train, dev):
        for item in (dataset[index] for index in range(len(dataset))):
            assert expert.labels[item["label"]] in Path(item["name"]).parts


def test_split_without_utterances_is_refused(tmp_path):
    expert = build(write_speakers(tmp_path, {"anna": 2, "ben": 2}))
    with pytest.raises(UserError, match="no utterance for the split 'dev'"):
        expert.get_dataset("dev")


def test_rebuilt_expert_needs_no_data_and_predicts_the_same(tmp_path):
    expert = build(write_speakers(tmp_path, {"anna": 3, "ben": 3, "cem": 3}))
    state = json.loads(json.dumps(expert.state()))
    rebuilt = build(tmp_path / "gone", state=state)
    rebuilt.load_state_dict(expert.state_dict(), strict=True)
    features, lengths = torch.randn(2, 5, 8), torch.tensor([5, 3])
    assert rebuilt.predict(features, lengths) == expert.predict(features, lengths)


def test_speakers_unknown_to_the_checkpoint_are_refused(tmp_path):
    root = write_speakers(tmp_path, {"anna": 3, "ben": 3, "cem": 3})
    expert = build(root, state={"speakers": ["anna", "ben"]})
    with pytest.raises(
        UserError, match=r"1 of the 3 utterances of the split 'test' have speakers that .* such as 'cem'"
    ):
        expert.get_dataset("test")


def test_predictions_are_the_five_likeliest_with_probabilities(tmp_path):
    expert = build(tmp_path, state={"speakers": [f"id{number}" for number in range(9)]})
    features, lengths = torch.randn(2, 6, 8), torch.tensor([6, 2])
    expected = expert.model(features, lengths).softmax(-1)
    for row, result in enumerate(json.loads(json.dumps(expert.predict(features, lengths)))):
        guesses = [(each["speaker"], each["probability"]) for each in result["speakers"]]
        ranked = sorted(zip(expert.labels, expected[row].tolist(), strict=True), key=lambda pair: -pair[1])[:5]
        assert [name for name, _ in guesses] == [name for name, _ in ranked]
        assert [value for _, value in guesses] == pytest.approx([value for _, value in ranked])
        line = expert.format_prediction(result)
        assert line.startswith(f"{guesses[0][0]} {100 * guesses[0][1]:.1f} %") and "\n" not in line


@pytest.mark.parametrize("pooling", POOLINGS)
def test_logits_do_not_depend_on_padding(pooling):
    torch.manual_seed(0)
    model = Classifier(8, 4, ClassifierConfig(projector_size=16, pooling=pooling))
    features, lengths = torch.randn(3, 7, 8), torch.tensor([7, 1, 4])
    padded = torch.full((3, 12, 8), float("nan"))
    for row, length in enumerate(lengths.tolist()):
        padded[row, :length] = features[row, :length]
        alone = model(features[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(model(features, lengths)[row], alone[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(padded, lengths), model(features, lengths), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_head_learns_speakers_that_differ(pooling, tmp_path):
    expert = build(
        tmp_path, f"model.pooling={pooling}", "model.projector_size=16", state={"speakers": list("abcdef")}
    )
    generator = torch.Generator().manual_seed(0)
    voices = torch.randn(6, 8, generator=generator)
    optimizer = torch.optim.AdamW(expert.parameters(), lr=0.02)
    for _ in range(60):
        labels = torch.randint(0, 6, (12,), generator=generator)
        features = voices[labels][:, None] + 0.3 * torch.randn(12, 10, 8, generator=generator)
        records: dict[str, list] = {}
        lengths = torch.randint(1, 11, (12,), generator=generator)
        loss = expert("dev", features, lengths, labels.tolist(), records, [""] * 12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metrics = expert.log_records("dev", records)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert metrics["accuracy"] > 0.8 and metrics["accuracy"] <= metrics["top5"]
    assert DownstreamExpert.monitor in metrics and DownstreamExpert.mode == "max"


def test_report_is_a_table_and_a_picture(tmp_path):
    expert = build(tmp_path, state={"speakers": ["anna", "ben", "cem"]})
    records: dict[str, list] = {}
    names = [f"{number}.wav" for number in range(6)]
    labels = [0, 1, 2, 2, 1, 0]
    expert("test", torch.randn(6, 4, 8), torch.full((6,), 4), labels, records, names)
    table, picture = expert.write_report("test", records, tmp_path)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", "speaker", "predicted", "probability", "correct"]
    assert [row["name"] for row in rows] == names
    assert [row["speaker"] for row in rows] == [expert.labels[label] for label in labels]
    right = [row["speaker"] == row["predicted"] for row in rows]
    assert [row["correct"] == "True" for row in rows] == right
    assert expert.log_records("test", records)["accuracy"] == pytest.approx(sum(right) / 6)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_wrong_settings_are_told_with_what_is_possible(tmp_path):
    overrides = ("model.pooling=attentiv", "datarc.max_timestep=100", "datarc.max_bad_fraction=2")
    with pytest.raises(UserError) as error:
        build(tmp_path, *overrides)
    for part in ("model.pooling", "attentive_statistics", "datarc.max_timestep", "datarc.max_bad_fraction"):
        assert part in str(error.value)


def test_without_data_the_demo_corpus_is_used(demo_cache):
    config = load_config(DownstreamExpert.Config, files=[CONFIG], demo=True)
    assert not DownstreamExpert.has_data(config)
    DownstreamExpert.use_demo_data(config)
    assert DownstreamExpert.has_data(config)
    expert = DownstreamExpert(UPSTREAM, config)
    listed = read_split_list(Path(config.datarc.file_path) / "iden_split.txt")
    assert {split: len(expert.get_dataset(split)) for split in SPLITS} == Counter(listed.values())
    assert len(expert.labels) >= 10


def test_superbs_recipe_is_read():
    config = load_config(DownstreamExpert.Config, files=[CONFIG.with_name("superb.yaml")])
    assert config.dataloader.batch_size * config.trainer["accumulate_grad_batches"] == 32
    assert (config.optimizer.lr, config.trainer["max_steps"], config.model.projector_size) == (1e-4, 200_000, 256)
