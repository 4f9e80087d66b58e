"""What names of weights mean, and what is said of those that mean nothing."""

import hashlib
from pathlib import Path

import pytest

import mynah
from mynah.utility.errors import UserError
from mynah.utility.experiments import shipped
from mynah.utility.experiments.checkpoint import locate_checkpoint
from mynah.utility.experiments.provenance import checkpoint_origin


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A folder of weights, and another folder in which commands are given."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for stem in ("aalbert-small", "melhubert-small", "melhubert-tiny"):
        (folder / f"{stem}.safetensors").write_bytes(stem.encode())
    monkeypatch.setattr(shipped, "WEIGHTS", folder)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_a_name_means_the_weights_of_the_upstream_that_is_asked_for(weights):
    assert locate_checkpoint("small", "aalbert") == weights / "aalbert-small.safetensors"
    assert locate_checkpoint("small", "melhubert") == weights / "melhubert-small.safetensors"
    assert locate_checkpoint("melhubert-tiny", "aalbert") == weights / "melhubert-tiny.safetensors"
    assert mynah.list_weights() == {"aalbert": ["small"], "melhubert": ["small", "tiny"]}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_or_folder_of_the_name_is_taken_as_a_path_alone(weights, kind):
    own = Path("small").absolute()
    if kind == "file":
        own.touch()
    else:
        (own / "checkpoints").mkdir(parents=True)
        (own / "checkpoints" / "last.ckpt").write_bytes(b"x")
    found = own if kind == "file" else own / "checkpoints" / "last.ckpt"
    assert locate_checkpoint("small", "aalbert") == weights / "aalbert-small.safetensors"
    assert locate_checkpoint("./small", "aalbert").absolute() == found
    assert locate_checkpoint(Path("small"), "aalbert").absolute() == found
    assert locate_checkpoint("small").absolute() == found  # where no upstream's weights are asked for
    assert "./small, which is there too, was not taken" in shipped.describe_source("small", "aalbert")
    assert shipped.describe_source("./small", "aalbert") == "./small"


def test_an_unknown_name_is_told_the_names_there_are(weights):
    with pytest.raises(UserError) as caught:
        locate_checkpoint("smal", "melhubert")
    message = str(caught.value)
    assert message.startswith("smal: no such checkpoint, neither a file here nor a name of weights")
    assert "melhubert comes by the names small, tiny (did you mean small?)" in message
    with pytest.raises(UserError, match="tera comes without weights"):
        locate_checkpoint("small", "tera")


@pytest.mark.parametrize(
    "source", ["small.ckpt", "./small", "a/small", "Small", "", "sm all", "..", "small\n", "ſmall"]
)
def test_what_is_no_word_is_a_path(weights, source):
    assert not shipped.is_name(source)
    assert shipped.find_shipped(source, "aalbert") is None
    assert shipped.advice_on_name(source, "aalbert") == ""


def test_the_record_of_a_run_names_the_file_and_its_sha256(weights):
    origin = checkpoint_origin("small", "aalbert")
    digest = hashlib.sha256(b"aalbert-small").hexdigest()
    assert origin == {"given": "small", "file": str(weights / "aalbert-small.safetensors"), "sha256": digest}
    assert checkpoint_origin("small") == {"given": "small"}
