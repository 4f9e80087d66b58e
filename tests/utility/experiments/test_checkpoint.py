"""Checkpoints: written whole or not at all, read back, and wrong ones refused with one clear message."""

import http.server
import io
import os
import resource
import threading
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import (
    FORMAT_VERSION,
    METADATA,
    load_weights,
    locate_checkpoint,
    make_metadata,
    read_checkpoint,
    save_atomically,
    select_weights,
)


@pytest.fixture
def content() -> dict:
    weights = {"model.a.weight": torch.randn(3, 4), "model.a.bias": torch.randn(3), "other": torch.ones(1)}
    return {
        "state_dict": weights,
        METADATA: make_metadata("pretrain", "aalbert", {"model": {"hidden_size": 4}}, step=7),
    }


@pytest.fixture
def file(content, tmp_path) -> Path:
    path = tmp_path / "exp" / "checkpoints" / "last.ckpt"
    save_atomically(content, path)
    return path


def test_what_was_saved_is_read_back(content, file):
    for source in (file, str(file), file.parent.parent):
        checkpoint = read_checkpoint(source, "pretrain", "aalbert")
        assert checkpoint[METADATA] == {
            "format_version": FORMAT_VERSION,
            "kind": "pretrain",
            "upstream": "aalbert",
            "config": {"model": {"hidden_size": 4}},
            "step": 7,
        }
        assert checkpoint["state_dict"].keys() == content["state_dict"].keys()
        for key, value in content["state_dict"].items():
            assert torch.equal(checkpoint["state_dict"][key], value)


def test_no_code_in_a_file_is_run(tmp_path):
    path = tmp_path / "evil.ckpt"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"state_dict": {}, METADATA: Evil()}, path)
    with pytest.raises(UserError, match=r"evil\.ckpt: not a readable checkpoint"):
        read_checkpoint(path, "pretrain")
    assert not (tmp_path / "made").exists()


def plain_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hello.txt", "hello")
    return buffer.getvalue()


WRONG_BYTES = {
    "empty": lambda good: b"",
    "garbage": lambda good: b"\x93garbage\x00" * 50,
    "letters": lambda good: b"abc" * 100,  # to the unpickler: an append to nothing
    "text": lambda good: b"not a checkpoint\n",
    "page": lambda good: b"<!DOCTYPE html><html>404</html>",
    "another zip": lambda good: plain_zip(),
    "one byte": lambda good: good[:1],
    "half": lambda good: good[: len(good) // 2],
    "without its end": lambda good: good[:-1],
}


@pytest.mark.parametrize("kind", WRONG_BYTES)
def test_a_file_that_cannot_be_read_is_named(file, kind):
    file.write_bytes(WRONG_BYTES[kind](file.read_bytes()))
    with pytest.raises(UserError) as error:
        read_checkpoint(file, "pretrain", "aalbert")
    size = file.stat().st_size
    said = {
        "empty": "empty: it has no bytes",
        "half": f"truncated: it ends after {size} bytes",
        "without its end": f"truncated: it ends after {size} bytes",
    }
    other = (
        f"not a readable checkpoint ({size} bytes of another kind of file); expected one written by run_pretrain.py"
    )
    assert str(error.value).startswith(f"{file}: {said.get(kind, other)}")


@pytest.mark.parametrize(
    "content", [torch.zeros(3), {"state_dict": {}}, [1, 2], {METADATA: "text", "state_dict": {}}]
)
def test_a_torch_file_of_something_else_is_named(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(
        UserError, match=r"other\.pt: a torch file, but not a checkpoint of Mynah; expected an upstream"
    ):
        read_checkpoint(path, "pretrain", "aalbert")


def test_checkpoints_of_another_kind_model_or_format_are_named(content, file):
    with pytest.raises(UserError, match=r"holds an upstream checkpoint of run_pretrain\.py; expected a task"):
        read_checkpoint(file, "downstream")
    with pytest.raises(UserError, match="holds upstream 'aalbert', but 'mockingjay' was asked for; give -u aalbert"):
        read_checkpoint(file, "pretrain", "mockingjay")
    content[METADATA]["format_version"] = FORMAT_VERSION + 1
    save_atomically(content, file)
    with pytest.raises(UserError, match=f"format {FORMAT_VERSION + 1}, this version reads up to {FORMAT_VERSION}"):
        read_checkpoint(file, "pretrain")


def test_what_is_not_there_is_named(tmp_path, file):
    with pytest.raises(UserError, match=r"none\.ckpt: no such checkpoint; give a \.ckpt file"):
        read_checkpoint(tmp_path / "none.ckpt", "pretrain")
    with pytest.raises(UserError, match=r"no checkpoints/last\.ckpt in this directory"):
        read_checkpoint(file.parent, "pretrain")
    (file.parent / ".hidden.ckpt").touch()
    with pytest.raises(UserError, match=rf"a URL; in that folder lie {file.name}$"):
        read_checkpoint(file.with_name("best.ckpt"), "pretrain")


def test_an_unreadable_file_says_so(file, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # a superuser reads any file
    with pytest.raises(UserError, match=r"last\.ckpt: permission denied"):
        read_checkpoint(file, "pretrain")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


def test_a_url_is_downloaded_once(file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    handler = partial(QuietHandler, directory=str(file.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/last.ckpt"
        assert read_checkpoint(url, "pretrain")[METADATA]["step"] == 7
        with pytest.raises(UserError, match=r"missing\.ckpt: could not be downloaded"):
            locate_checkpoint(url.replace("last", "missing"))
        server.shutdown()
    assert read_checkpoint(url, "pretrain")[METADATA]["step"] == 7  # the server is gone
    with pytest.raises(UserError, match="could not be downloaded"):
        locate_checkpoint(url + "?other")
    assert len(list((tmp_path / "torch").rglob("*.ckpt"))) == 1


def test_a_full_disk_leaves_the_earlier_checkpoint(content, file):
    before = file.read_bytes()
    content["state_dict"]["large"] = torch.zeros(1 << 20)  # 4 MiB
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(UserError, match=r"last\.ckpt: could not be saved \(File too large\); earlier.*Free"):
            save_atomically(content, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_save_that_is_cut_short_leaves_the_earlier_checkpoint(content, file, monkeypatch):
    before = file.read_bytes()

    def write_half(content, stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", write_half)
    with pytest.raises(KeyboardInterrupt):
        save_atomically(content, file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_weights_are_loaded_whole(file):
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    weights = {key: torch.randn_like(value) for key, value in module.state_dict().items()}
    load_weights(module, weights, file)
    for key, value in module.state_dict().items():
        assert torch.equal(value, weights[key])


def test_weights_that_do_not_fit_are_named_and_not_loaded():
    module = nn.ModuleDict({f"layer{index}": nn.Linear(2, 2) for index in range(4)})
    before = {key: value.clone() for key, value in module.state_dict().items()}
    weights = {f"wrong{index}": torch.zeros(1) for index in range(2)}
    weights |= {"layer0.weight": torch.zeros(3, 2), "layer0.bias": torch.zeros(2)}
    with pytest.raises(UserError) as error:
        load_weights(module, weights, "some.ckpt")
    message = str(error.value)
    assert message.startswith("some.ckpt: its weights do not fit")
    assert "6 missing: layer1.bias, layer1.weight, layer2.bias and 3 more" in message
    assert "2 not expected: wrong0, wrong1" in message
    assert "1 of another shape: layer0.weight (3, 2) for (2, 2)" in message
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])


def test_weights_are_selected_by_prefix(content):
    selected = select_weights(content["state_dict"], "model.")
    assert list(selected) == ["a.weight", "a.bias"]


def test_a_failure_that_is_none_of_the_disk_is_not_called_one(tmp_path, monkeypatch):
    def fail(content, file):
        raise RuntimeError("something else")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        save_atomically({"state_dict": {}}, tmp_path / "a.ckpt")
