"""Batches for masked pretraining: plans that depend on the key alone, and files that cannot be used."""

from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah.utility.acoustic.dataset import MaskedSpeechDataset, collate
from mynah.utility.acoustic.features import Positions
from mynah.utility.acoustic.masking import MaskingConfig
from mynah.utility.audio.corpus import SpeechDataset, Utterance
from mynah.utility.audio.front_end import Framing

LENGTHS = [9000, 4000, 20000]


@pytest.fixture
def dataset(tmp_path: Path) -> MaskedSpeechDataset:
    utterances = []
    for index, samples in enumerate(LENGTHS):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, np.random.default_rng(index).uniform(-0.5, 0.5, samples), 16000)
        utterances.append(Utterance(str(path), samples, "corpus"))
    return build(utterances)


def build(utterances: list[Utterance], max_samples: int = 8000) -> MaskedSpeechDataset:
    positions = Positions(Framing(hop=160, first=0, min_samples=201), frames_per_position=3)
    return MaskedSpeechDataset(SpeechDataset(utterances, max_samples, seed=3), positions, 160, MaskingConfig())


def test_an_item_is_a_function_of_its_key(dataset):
    once, again, other_pass = dataset[(4, 2)], dataset[(4, 2)], dataset[(5, 2)]
    assert torch.equal(once["signal"], again["signal"])
    assert torch.equal(once["plan"].target, again["plan"].target)
    assert not torch.equal(once["signal"], other_pass["signal"])
    assert not torch.equal(once["plan"].target, other_pass["plan"].target)


def test_utterances_of_a_length_are_not_masked_alike(dataset):
    targets = {tuple(dataset[(number, 2)]["plan"].target.tolist()) for number in range(20)}
    assert len(targets) > 15


def test_plans_have_the_positions_of_the_crop(dataset):
    for index, samples in enumerate([8000, 4000, 8000]):
        item = dataset[(0, index)]
        assert len(item["signal"]) == samples
        assert len(item["plan"].target) == (1 + samples // 160) // 3


def test_a_batch_names_what_could_not_be_read(dataset, tmp_path):
    (tmp_path / "1.wav").write_bytes(b"no audio")
    batch = collate([dataset[(0, index)] for index in range(3)])
    assert batch["wavs"].shape == (2, 8000)
    assert batch["lengths"].tolist() == [8000, 8000]
    assert batch["plan"].target.shape == (2, 17)
    assert batch["names"] == [str(tmp_path / "0.wav"), str(tmp_path / "2.wav")]
    assert batch["audio_seconds"] == 1.0
    ((name, reason),) = batch["bad"]
    assert name == str(tmp_path / "1.wav")
    assert reason
    nothing = collate([dataset[(0, 1)]])
    assert nothing["names"] == [] and [name for name, _ in nothing["bad"]] == [str(tmp_path / "1.wav")]


def test_what_is_too_short_for_a_position_is_left_out(tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(319, 0.1), 16000)
    item = build([Utterance(str(path), 319, "corpus")])[(0, 0)]
    assert item["signal"] is None
    assert "too short" in item["error"]


def test_what_a_spawned_worker_is_sent_holds_nothing_of_the_model(dataset):
    sent = ForkingPickler.dumps(dataset)
    assert len(sent) < 5000
    assert torch.equal(ForkingPickler.loads(sent)[(0, 1)]["signal"], dataset[(0, 1)]["signal"])
