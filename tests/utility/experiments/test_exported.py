"""Files of exported weights: written, read by another reader, damaged, and changed."""

import json
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch

from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, make_metadata, read_checkpoint
from mynah.utility.experiments.exported import Exported, encode_export, read_exported

WEIGHTS = {
    "model.a": torch.randn(3, 4).half(),
    "model.mean": torch.randn(4),
    "model.scale": torch.tensor(2.0, dtype=torch.float16),
    "model.empty": torch.zeros(0, 2, dtype=torch.float16),
}
ABOUT = make_metadata("pretrain", "aalbert", {"model": {}, "objective": None}, 7)


def write(path: Path, weights=WEIGHTS, metadata=ABOUT, provenance=None) -> Path:
    path.write_bytes(encode_export(weights, Exported({}, metadata, provenance or {"data": "ä"})))
    return path


def rewrite_header(path: Path, change) -> None:
    """Change the JSON before the tensors, by the format's own definition: 8 bytes of length, then the text."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])


def test_what_is_written_is_read_as_float32_and_as_a_checkpoint(tmp_path):
    path = write(tmp_path / "a.safetensors")
    read = read_exported(path)
    assert read.weights.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        assert read.weights[name].dtype == torch.float32
        assert torch.equal(read.weights[name], value.float())
    assert (read.metadata, read.provenance) == (ABOUT, {"layout": 1, "data": "ä"})
    checkpoint = read_checkpoint(path, "pretrain", "aalbert")
    assert checkpoint[METADATA] == ABOUT
    assert torch.equal(checkpoint["state_dict"]["model.a"], WEIGHTS["model.a"].float())


def test_another_reader_finds_half_precision_and_json(tmp_path):
    path = write(tmp_path / "a.safetensors")
    assert {name: value.dtype for name, value in safetensors.torch.load_file(path).items()} == {
        name: value.dtype for name, value in WEIGHTS.items()
    }
    with safetensors.safe_open(path, framework="np") as file:
        assert json.loads(file.metadata()["provenance"])["data"] == "ä"


def test_a_file_that_ends_early_anywhere_is_refused(tmp_path):
    path = write(tmp_path / "a.safetensors")
    content = path.read_bytes()
    for size in (1, 7, 8, 9, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=rf"a\.safetensors: truncated, damaged or no safetensors file \({size} b"):
            read_exported(path)


def test_a_flipped_bit_in_any_tensor_is_found(tmp_path):
    path = write(tmp_path / "a.safetensors")
    content = path.read_bytes()
    for offset in (1, 10, 20, 40):
        changed = bytearray(content)
        changed[-offset] ^= 4
        path.write_bytes(changed)
        with pytest.raises(
            UserError, match=r"a\.safetensors: damaged or changed: its contents do not have the SHA-256"
        ):
            read_exported(path)


@pytest.mark.parametrize("key", ["mynah", "provenance", "digest"])
def test_metadata_changed_by_hand_is_found(tmp_path, key):
    path = write(tmp_path / "a.safetensors")
    rewrite_header(path, lambda header: header["__metadata__"].update({key: '{"layout": 1, "kind": "pretrain"}'}))
    with pytest.raises(UserError, match="damaged or changed"):
        read_exported(path)


def test_a_tensor_of_another_name_or_shape_is_found(tmp_path):
    path = write(tmp_path / "a.safetensors")

    def turn(header: dict) -> None:
        header["model.a"]["shape"] = [4, 3]

    rewrite_header(path, turn)
    with pytest.raises(UserError, match="damaged or changed"):
        read_exported(path)


def test_safetensors_of_others_are_told_apart(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(UserError, match="safetensors of something else; expected a file that `mynah export`"):
        read_exported(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([], "expected an upstream checkpoint"),
        ({**ABOUT, "step": "7"}, "its metadata lacks step"),
        ({**ABOUT, "kind": "downstream"}, "lacks downstream"),
        ({**ABOUT, "format_version": 99}, "written in checkpoint format 99"),
        ({**ABOUT, "upstream": "melhubert"}, "holds upstream 'melhubert', but 'aalbert' was asked for"),
    ],
)
def test_metadata_that_say_something_else_are_refused(tmp_path, metadata, message):
    path = write(tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(UserError, match=message):
        read_checkpoint(path, "pretrain", "aalbert")


def test_a_later_layout_and_weights_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(UserError, match="written in layout 2; this version reads up to 1"):
        read_exported(write(tmp_path / "a.safetensors", provenance={"layout": 2}))
    path = write(tmp_path / "a.safetensors", weights={"model.a": torch.tensor([float("nan")])})
    with pytest.raises(UserError, match="NaN or infinite"):
        read_checkpoint(path, "pretrain", "aalbert")


def test_a_folder_of_that_name_is_refused(tmp_path):
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(UserError, match=r"a\.safetensors"):
        read_exported(tmp_path / "a.safetensors")
