"""Keyword spotting: the official division, the classes in their order, silence, and a balanced training set."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah import ROOT
from mynah.downstream.build import TaskOptions
from mynah.downstream.inference import predict
from mynah.downstream.interfaces import SPLITS, UpstreamInfo
from mynah.downstream.speech_commands.dataset import SILENCE, UNKNOWN
from mynah.downstream.speech_commands.expert import DownstreamExpert
from mynah.downstream.training import train
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "speech_commands" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)
WORDS = {"go": 40, "yes": 30, "cat": 60}


def official_split(file_name: str) -> str:
    """Of the corpus's README: which_set, with its ten per cent each for validation and testing."""
    most = 2**27 - 1
    hashed = hashlib.sha1(re.sub(r"_nohash_.*$", "", file_name).encode()).hexdigest()
    percentage = (int(hashed, 16) % (most + 1)) * (100.0 / most)
    return "dev" if percentage < 10 else "test" if percentage < 20 else "train"


def write(path: Path, samples: int, level: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(samples, level), 16000)


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("speech_commands") / "v0.01"
    for word, count in WORDS.items():
        for number in range(count):
            write(root / word / f"{number:08x}_nohash_{number % 3}.wav", 8000 + 100 * number)
    generator = np.random.default_rng(0)
    (root / "_background_noise_").mkdir()
    for name in ("one", "two"):
        soundfile.write(root / "_background_noise_" / f"{name}.wav", generator.normal(0, 0.1, 160000), 16000)
    (root / "README.md").write_text("not a word")
    return root


def build(commands: Path, *overrides: str, state: dict | None = None) -> DownstreamExpert:
    overrides = (f"datarc.file_path={commands}", *overrides)
    config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=overrides)
    torch.manual_seed(0)
    return DownstreamExpert(UPSTREAM, config, state)


def test_speakers_are_divided_as_the_corpus_says_and_silence_is_in_train_and_dev(commands):
    expert = build(commands, "datarc.balanced=false")
    for split in SPLITS:
        for utterance, label in expert.corpus[split]:
            folder, _, name = utterance.name.partition("/")
            if label == SILENCE:
                assert split != "test" and folder == "_background_noise_"
            else:
                assert split == official_split(name)
                assert label == (UNKNOWN if folder == "cat" else folder)
    assert sum(len(items) for items in expert.corpus.values()) == sum(WORDS.values()) + 2 * 2


def test_classes_stand_in_superbs_order(commands):
    assert build(commands).labels == ["yes", "go", UNKNOWN, SILENCE]
    assert build(commands, "datarc.words=[]").labels == ["cat", "go", "yes", SILENCE]
    assert build(commands, "datarc.words=[cat, go]").labels == ["cat", "go", UNKNOWN, SILENCE]


def test_every_class_is_as_frequent_in_training_and_nothing_is_lost(commands):
    plain, even = (build(commands, f"datarc.balanced={value}").corpus["train"] for value in ("false", "true"))
    counts = Counter(label for _, label in even)
    assert len(set(counts.values())) == 1
    assert set(even) == set(plain)
    assert counts[UNKNOWN] == Counter(label for _, label in plain)[UNKNOWN]


def test_silence_is_a_second_of_noise_another_one_each_time_and_dev_always_the_same(commands):
    expert = build(commands)
    train_set, dev_set = expert.get_dataset("train"), expert.get_dataset("dev")
    silence = [index for index, label in enumerate(train_set.labels) if expert.labels[label] == SILENCE]
    crops = [train_set[step, index]["signal"] for step in range(2) for index in silence[:4]]
    assert all(len(crop) == 16000 for crop in crops)
    assert not any(torch.equal(one, other) for place, one in enumerate(crops) for other in crops[:place])
    index = next(index for index, label in enumerate(dev_set.labels) if expert.labels[label] == SILENCE)
    assert torch.equal(dev_set[0, index]["signal"], dev_set[0, index]["signal"])
    assert max(dev_set.lengths) == 16000


@pytest.mark.parametrize("given", [True, False])
def test_a_separate_test_set_takes_the_place_of_the_test_share(commands, tmp_path, given):
    place = tmp_path / "mine" if given else commands.parent / "speech_commands_test_set_v0.01"
    for number, word in enumerate(("yes", "go", UNKNOWN, SILENCE)):
        write(place / word / f"t{number}_nohash_0.wav", 16000)
    try:
        expert = build(commands, *([f"datarc.test_path={place}"] if given else []))
        assert sorted(label for _, label in expert.corpus["test"]) == sorted([UNKNOWN, SILENCE, "go", "yes"])
        names = [utterance.name.split("/")[-1] for split in ("train", "dev") for utterance, _ in expert.corpus[split]]
        assert not [name for name in names if "_nohash_" in name and official_split(name) == "test"]
    finally:
        for path in place.rglob("*.wav"):
            path.unlink()
        for path in [*place.iterdir(), place]:
            path.rmdir()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["datarc.words=[zebra]"], "has none of the words zebra"),
        (["datarc.words=[go, go]"], "a word is listed twice"),
        (["datarc.words=[_unknown_]"], "is no word"),
        (["datarc.test_path=/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_mistakes_are_told(commands, overrides, said):
    with pytest.raises(UserError, match=said):
        build(commands, *overrides)


def test_words_that_the_corpus_lacks_are_named(commands, caplog):
    expert = build(commands, "datarc.words=[yes, zebra, nö]")
    expert.corpus  # noqa: B018 (read on first use)
    assert "has no folder with zebra, nö of datarc.words; goes on without" in caplog.text


def test_a_dev_split_of_silence_alone_is_refused(tmp_path):
    names = (f"{number:08x}_nohash_0.wav" for number in range(1000))
    train = [name for name in names if official_split(name) == "train"][:8]
    for word in ("yes", "no"):
        for name in train:
            write(tmp_path / word / name, 8000)
    write(tmp_path / "_background_noise_" / "one.wav", 40000)
    with pytest.raises(UserError, match="no utterance for the split 'dev'"):
        build(tmp_path, "datarc.words=[]").get_dataset("dev")


def test_a_rebuilt_expert_needs_no_data(commands):
    expert = build(commands).eval()
    rebuilt = build(Path("/nowhere"), state=expert.state()).eval()
    rebuilt.load_state_dict(expert.state_dict())
    features, lengths = torch.randn(2, 9, 8), torch.tensor([9, 5])
    assert rebuilt.predict(features, lengths) == expert.predict(features, lengths)
    padded = expert.predict(torch.cat([features, torch.randn(2, 4, 8)], 1), lengths)
    for one, other in zip(expert.predict(features, lengths), padded, strict=True):
        for mine, theirs in zip(one["words"], other["words"], strict=True):
            assert mine["word"] == theirs["word"]
            assert mine["probability"] == pytest.approx(theirs["probability"], abs=1e-6)


def test_the_demo_learns_words_of_voices_that_it_has_not_heard(demo_cache, tmp_path):
    fast = ["trainer.max_steps=150", "trainer.enable_progress_bar=false", "model.pooling=statistics"]
    metrics = train(
        TaskOptions(root=tmp_path, name="ks", upstream="fbank", downstream="speech_commands", overrides=fast)
    )
    assert metrics["test"]["accuracy"] > 0.6
    assert (tmp_path / "ks" / "test" / "confusion.png").is_file()
    [stop] = sorted((demo_cache / "demo").glob("*/SpeechCommands/stop"))
    [result] = predict(TaskOptions(resume=str(tmp_path / "ks")), [sorted(stop.iterdir())[0]])
    assert result.result["words"][0]["word"] == "stop"
