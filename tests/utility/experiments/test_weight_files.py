"""Files of weights, right and wrong, written by torch and by safetensors."""

import os
from collections import OrderedDict
from fractions import Fraction

import pytest
import torch
from safetensors.torch import save_file

from mynah.utility.errors import UserError
from mynah.utility.experiments.weight_files import read_weights

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2, dtype=torch.float16)}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        OrderedDict(WEIGHTS),
        {"state_dict": WEIGHTS, "meta": {"epoch": 3, "time": "today"}},
        {"model": WEIGHTS, "optimizer": {"state": {}, "param_groups": []}, "epoch": 300},
    ],
    ids=["bare", "ordered", "mmcv's", "Swin's"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_in_torch_files_are_found(tmp_path, content, zipped):
    path = tmp_path / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for source in (path, str(path)):
        read = read_weights(source, "weights")
        assert read.keys() == WEIGHTS.keys()
        assert all(torch.equal(read[name], weight) for name, weight in WEIGHTS.items())


def test_weights_in_safetensors_are_found(tmp_path):
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    read = read_weights(tmp_path / "weights.safetensors", "weights")
    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[name], weight) for name, weight in WEIGHTS.items())


def test_the_home_folder_may_be_abbreviated(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(WEIGHTS, tmp_path / "weights.pth")
    assert read_weights("~/weights.pth", "weights").keys() == WEIGHTS.keys()


@pytest.mark.parametrize("content", [{}, [torch.zeros(2)], {"epoch": 3}, {"state_dict": {"a": 1}}, torch.zeros(2)])
def test_something_else_than_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: holds something else than weights by name; expected a Swin"):
        read_weights(tmp_path / "other.pth", "a Swin")


def test_python_objects_are_named_and_not_loaded(tmp_path):
    torch.save({"state_dict": WEIGHTS, "meta": Fraction(1, 2)}, tmp_path / "objects.pth")
    with pytest.raises(UserError, match=r"objects\.pth: holds fractions\.Fraction beside weights"):
        read_weights(tmp_path / "objects.pth", "a Swin")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "text"])
def test_damaged_files_are_refused(tmp_path, name, damage):
    path = tmp_path / name
    if name.endswith("pth"):
        torch.save(WEIGHTS, path)
    else:
        save_file(WEIGHTS, path)
    whole = path.read_bytes()
    damaged = {"truncated": whole[: len(whole) // 2], "empty": b"", "garbage": bytes(range(256)), "text": b"weights"}
    path.write_bytes(damaged[damage])
    said = {"empty": "empty: it has no bytes", "truncated": "truncated: it ends after|not readable"}
    with pytest.raises(UserError, match=rf"{name}: ({said.get(damage, 'not readable')}).*expected a Swin"):
        read_weights(path, "a Swin")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(UserError, match=f"{path}: (no such file|a folder, not a file); expected a Swin"):
            read_weights(path, "a Swin")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path):
    torch.save(WEIGHTS, tmp_path / "weights.pth")
    (tmp_path / "weights.pth").chmod(0)
    with pytest.raises(UserError, match="permission denied"):
        read_weights(tmp_path / "weights.pth", "a Swin")
