"""Flipped bits, zeroed pages and cut-off ends of checkpoints are noticed; so are weights that are not finite."""

import hashlib
import random
import re

import pytest
import torch

from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import (
    METADATA,
    make_metadata,
    newest_state,
    read_checkpoint,
    save_atomically,
)
from mynah.utility.experiments.integrity import file_digest, not_finite, why_damaged
from mynah.utility.experiments.weight_files import read_weights

FLIPS = 60


@pytest.fixture
def content():
    weights = {f"layer{index}": torch.randn(40, 40) for index in range(4)}
    return {"state_dict": weights, METADATA: make_metadata("pretrain", "aalbert", {}, step=3), "global_step": 3}


@pytest.fixture
def checkpoints(tmp_path, content):
    folder = tmp_path / "exp" / "checkpoints"
    save_atomically(content, folder / "last.ckpt")
    return folder


def test_no_flipped_bit_changes_what_is_read_without_a_word(tmp_path, checkpoints, content):
    good = (checkpoints / "last.ckpt").read_bytes()
    generator = random.Random(0)
    refused = 0
    for number in range(FLIPS):
        damaged = bytearray(good)
        damaged[generator.randrange(len(good))] ^= 1 << generator.randrange(8)
        path = tmp_path / f"{number}.ckpt"
        path.write_bytes(damaged)
        try:
            read = read_checkpoint(path, "pretrain")
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
            continue
        # A bit of padding or of a time stamp: what is read must be what was written.
        assert all(torch.equal(read["state_dict"][key], value) for key, value in content["state_dict"].items())
    assert refused > 0.8 * FLIPS


def test_a_zeroed_page_is_noticed_at_every_door(checkpoints):
    path = checkpoints / "last.ckpt"
    damaged = bytearray(path.read_bytes())
    damaged[8192:12288] = bytes(4096)
    path.write_bytes(damaged)
    for read in (lambda: read_checkpoint(path, "pretrain"), lambda: read_weights(path, "weights")):
        with pytest.raises(UserError, match=r"last\.ckpt: damaged: the checksum of its part .* is wrong; restore it"):
            read()


def test_truncated_is_said_of_what_is_truncated_alone(tmp_path, checkpoints):
    good = (checkpoints / "last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(good[:5000])
    (tmp_path / "other.ckpt").write_bytes(b"something else")
    assert "truncated: it ends after 5000 bytes" in why_damaged(tmp_path / "cut.ckpt")
    assert why_damaged(tmp_path / "other.ckpt") is None
    with pytest.raises(
        UserError, match=r"other\.ckpt: not a readable checkpoint \(14 bytes of another kind of file\)"
    ):
        read_checkpoint(tmp_path / "other.ckpt", "pretrain")


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(checkpoints, content, monkeypatch):
    before = (checkpoints / "last.ckpt").read_bytes()
    content["state_dict"]["layer2"][0, 0] = float("nan")
    with pytest.raises(
        UserError, match=r"last\.ckpt: not saved, as the weights have become NaN or infinite \(layer2\)"
    ):
        save_atomically(content, checkpoints / "last.ckpt")
    assert (checkpoints / "last.ckpt").read_bytes() == before
    torch.save(content, checkpoints / "last.ckpt")
    with pytest.raises(UserError, match=r"holds weights that are NaN or infinite \(layer2\)"):
        read_checkpoint(checkpoints / "last.ckpt", "pretrain")
    assert not_finite({"ids": torch.tensor([1]), "ok": torch.zeros(2), "bad": torch.tensor([float("inf")])}) == [
        "bad"
    ]


@pytest.mark.parametrize(
    "wrong", [{"step": "3"}, {"config": []}, {"kind": None}, {"upstream": 7}, {"format_version": 1.5}]
)
def test_metadata_of_other_types_is_named(checkpoints, content, wrong):
    content[METADATA] |= wrong
    torch.save(content, checkpoints / "last.ckpt")
    with pytest.raises(UserError, match=f"its metadata lacks {next(iter(wrong))}, or has other types there"):
        read_checkpoint(checkpoints / "last.ckpt", "pretrain")


def test_the_newest_undamaged_state_is_taken_and_said(checkpoints, content, caplog):
    content["state_dict"]["layer0"] += 1
    save_atomically(content, checkpoints / "last.ckpt", checkpoints / "previous.ckpt")
    assert newest_state(checkpoints) == checkpoints / "last.ckpt"
    earlier = read_checkpoint(checkpoints / "previous.ckpt", "pretrain")
    assert not torch.equal(earlier["state_dict"]["layer0"], content["state_dict"]["layer0"])
    (checkpoints / "last.ckpt").write_bytes(b"PK\x03\x04 and no more")
    assert newest_state(checkpoints) == checkpoints / "previous.ckpt"
    assert re.search(r"last\.ckpt: truncated: .*going on from previous\.ckpt instead", caplog.text)
    (checkpoints / "previous.ckpt").write_bytes(b"")
    with pytest.raises(
        UserError, match=r"no checkpoint of the experiment can be read:\n.*last\.ckpt.*\n.*previous\.ckpt"
    ):
        newest_state(checkpoints)


def test_the_digest_is_that_of_the_file(checkpoints):
    path = checkpoints / "last.ckpt"
    assert file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
