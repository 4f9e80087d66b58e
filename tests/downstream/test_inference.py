"""Predictions of files: bounds that one file of a folder cannot break, and windows of long ones."""

import json

import numpy as np
import pytest
import soundfile
import torch

from mynah.commands import downstream as command
from mynah.downstream.build import TaskOptions
from mynah.downstream.inference import predict
from mynah.downstream.training import train
from mynah.utility.audio.files import read_audio
from mynah.utility.errors import UserError


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A speaker task of two steps on filter banks."""
    root = tmp_path_factory.mktemp("trained")
    values = [
        f"datarc.file_path={corpus}",
        "trainer.max_steps=2",
        "dataloader.num_workers=0",
        "scheduler.name=constant",
    ]
    train(TaskOptions(root=root, name="sid", upstream="fbank", downstream="voxceleb1_speaker", overrides=values))
    return root / "sid"


@pytest.fixture
def folder(tmp_path):
    """Three files: of a second, of nine, and of another second."""
    generator = np.random.default_rng(1)
    for name, seconds in (("a", 1), ("b", 9), ("c", 1)):
        soundfile.write(tmp_path / f"{name}.wav", generator.normal(0, 0.1, seconds * 16000), 16000)
    return tmp_path


def results(trained, inputs, *overrides):
    options = TaskOptions(resume=str(trained), overrides=list(overrides))
    return {each.path.stem: each for each in predict(options, inputs)}


def test_a_file_that_is_too_long_is_skipped_and_the_others_are_not(trained, folder):
    found = results(trained, [folder], "inference.max_seconds=5")
    assert "9 s long, more than inference.max_seconds=5; raise it, or" in str(found["b"].error)
    assert found["a"].result and found["c"].result


def test_ten_hours_are_not_read_to_be_refused(trained, tmp_path, monkeypatch):
    with soundfile.SoundFile(tmp_path / "day.wav", "w", 16000, 1, subtype="PCM_U8") as file:
        for _ in range(36):
            file.write(np.zeros(16_000_000, dtype=np.int16))
    monkeypatch.setattr("mynah.downstream.inference.read_audio", lambda *_: pytest.fail("it was read"))
    assert "36000 s long" in str(results(trained, [tmp_path / "day.wav"])["day"].error)


def test_windows_are_consecutive_parts_whose_features_are_joined(trained, folder, monkeypatch, caplog):
    caplog.set_level("INFO", logger="mynah")
    seen = []
    monkeypatch.setattr(
        "mynah.downstream.model.DownstreamModel.predict",
        lambda self, windows, name, samples, picture: seen.extend([*windows, (name, samples)]) or {"speakers": []},
    )
    results(trained, [folder / "b.wav"], "inference.max_seconds=5", "inference.window_seconds=2")
    *windows, file = seen
    assert file == (str(folder / "b.wav"), 5 * 28800)
    assert [(len(window), start) for window, start in windows] == [(28800, 28800 * index) for index in range(5)]
    assert torch.equal(torch.cat([window for window, _ in windows]), read_audio(folder / "b.wav"))
    assert "9 s, encoded in 5 windows of 1.8 s" in caplog.text


def test_a_prediction_over_windows_is_that_of_their_features_together(trained, folder):
    options = TaskOptions(resume=str(trained), overrides=["inference.window_seconds=3"])
    [windowed] = predict(options, [folder / "b.wav"])
    from mynah.downstream.build import find_trained, rebuild

    model = rebuild(options, find_trained(options, writes=False)).model.eval()
    parts = read_audio(folder / "b.wav").split(48000)
    features = torch.cat([model.features([part], [None])[0] for part in parts], 1)
    [expected] = model.expert.predict(features, torch.tensor([features.shape[1]]))
    for one, other in zip(windowed.result["speakers"], expected["speakers"], strict=True):
        assert one["speaker"] == other["speaker"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_a_file_that_memory_does_not_hold_is_skipped(trained, folder, monkeypatch):
    def read(path, *arguments):
        if path.stem == "b":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return read_audio(path, *arguments)

    monkeypatch.setattr("mynah.downstream.inference.read_audio", read)
    found = results(trained, [folder])
    assert "too little memory" in str(found["b"].error) and found["c"].result


def test_a_window_longer_than_the_bound_is_refused(trained, folder):
    with pytest.raises(UserError, match=r"window_seconds: expected at most max_seconds \(5.0\), got 6"):
        results(trained, [folder], "inference.max_seconds=5.0", "inference.window_seconds=6.0")


def test_windows_too_short_for_the_upstream_are_told_for_each_file(trained, folder):
    found = results(trained, [folder], "inference.window_seconds=0.01")
    assert all("makes windows of 160 samples" in str(each.error) for each in found.values())


def test_an_empty_folder_among_inputs_is_skipped_as_a_missing_file_is(
    trained, folder, tmp_path_factory, capsys, caplog
):
    empty = tmp_path_factory.mktemp("empty")
    given = ["--input", str(folder / "a.wav"), str(empty), "", str(folder / "nowhere.wav"), str(folder / "c.wav")]
    arguments = command.parse_arguments("x", ["-m", "inference", "-e", str(trained), "--json", *given])
    assert command.run(arguments) == 1
    assert [each["file"] for each in json.loads(capsys.readouterr().out)] == [given[1], given[-1]]
    assert "no audio files below" in caplog.text and "3 of 5 inputs were skipped" in caplog.text


def test_json_is_whole_when_it_is_interrupted(trained, folder, capsys, monkeypatch):
    def read(path, *arguments):
        if path.stem == "b":
            raise KeyboardInterrupt
        return read_audio(path, *arguments)

    monkeypatch.setattr("mynah.downstream.inference.read_audio", read)
    arguments = ["-m", "inference", "-e", str(trained), "--json", "--input", str(folder)]
    with pytest.raises(SystemExit) as end:
        command.main("p", arguments)
    assert end.value.code == 130
    [prediction] = json.loads(capsys.readouterr().out)
    assert prediction["file"] == str(folder / "a.wav") and prediction["speakers"]


def test_a_single_file_or_text_is_taken_as_one_of_a_list(trained, folder):
    """A text is a sequence of characters, and "." is a folder."""
    for given in (folder / "a.wav", str(folder / "a.wav")):
        [prediction] = predict(TaskOptions(resume=str(trained), overrides="inference.max_seconds=5"), given)
        assert prediction.path == folder / "a.wav" and prediction.result
