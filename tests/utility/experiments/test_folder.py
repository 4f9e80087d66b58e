"""Where a run writes: found, resumed, and never overwritten silently."""

import json
from pathlib import Path

import pytest

from mynah.utility.errors import UserError
from mynah.utility.experiments.folder import RANKS, Experiment, is_launched_process, open_experiment, write_json


@pytest.fixture(autouse=True)
def first_process(monkeypatch):
    """Whatever launched the tests."""
    for rank in RANKS:
        monkeypatch.delenv(rank, raising=False)


def make_experiment(folder: Path, *checkpoints: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    for name in checkpoints:
        (folder / "checkpoints" / name).write_bytes(b"x")
    return folder


def test_a_new_name_is_a_new_folder(tmp_path):
    experiment = open_experiment(tmp_path, "exp")
    assert experiment == Experiment(tmp_path / "exp")
    assert experiment.last == tmp_path / "exp" / "checkpoints" / "last.ckpt"
    assert experiment.best == tmp_path / "exp" / "checkpoints" / "best.ckpt"
    assert not (tmp_path / "exp").exists()


@pytest.mark.parametrize("name", ["../elsewhere", "/elsewhere", "a/b", ".."])
def test_a_name_is_no_path(tmp_path, name):
    with pytest.raises(UserError, match="expected a name, not a path; -p gives the folder"):
        open_experiment(tmp_path, name)


def test_a_name_is_needed(tmp_path):
    for name in (None, ""):
        with pytest.raises(UserError, match="-n NAME is needed"):
            open_experiment(tmp_path, name)


def test_an_empty_folder_is_no_experiment(tmp_path):
    (tmp_path / "exp").mkdir()
    assert open_experiment(tmp_path, "exp").resume_from is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/exp: cannot be written to: Not a directory; -p"):
        Experiment(tmp_path / "file" / "exp").begin()


def test_a_run_that_found_too_many_bad_files_leaves_no_experiment(tmp_path):
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "skipped_files.txt").write_text("a.wav\tempty\n")
    assert open_experiment(tmp_path, "exp").resume_from is None


def test_an_existing_experiment_is_not_overwritten(tmp_path):
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")  # anything at all
    with pytest.raises(UserError, match=rf"'exp' exists already in {folder}; -a .*-n "):
        open_experiment(tmp_path, "exp")


def test_auto_resume_goes_on_from_the_last_state_or_begins(tmp_path):
    assert open_experiment(tmp_path, "exp", auto_resume=True).resume_from is None
    folder = make_experiment(tmp_path / "exp")  # killed before it saved anything
    assert open_experiment(tmp_path, "exp", auto_resume=True) == Experiment(folder)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"x")
    resumed = open_experiment(tmp_path, "exp", auto_resume=True)
    assert resumed == Experiment(folder, folder / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("name", [None, "exp"])
@pytest.mark.parametrize("given", ["", "checkpoints/last.ckpt", "checkpoints/step-5.ckpt"])
def test_resuming_goes_on_in_the_experiment_of_the_checkpoint(tmp_path, name, given):
    folder = make_experiment(tmp_path / "exp", "last.ckpt", "step-5.ckpt")
    experiment = open_experiment(tmp_path, name, resume=str(folder / given))
    assert experiment == Experiment(folder, folder / (given or "checkpoints/last.ckpt"))


def test_resuming_one_experiment_under_the_name_of_another_is_refused(tmp_path):
    folder = make_experiment(tmp_path / "exp", "last.ckpt")
    with pytest.raises(UserError, match=r"goes on in .*exp, not in -n other.*--init-from"):
        open_experiment(tmp_path, "other", resume=str(folder))


def test_a_stray_checkpoint_needs_a_name_that_is_not_taken(tmp_path):
    stray = tmp_path / "downloaded.ckpt"
    stray.write_bytes(b"x")
    with pytest.raises(UserError, match="name one with -n"):
        open_experiment(tmp_path / "result", None, resume=str(stray))
    experiment = open_experiment(tmp_path / "result", "exp", resume=str(stray))
    assert experiment == Experiment(tmp_path / "result" / "exp", stray)
    make_experiment(tmp_path / "result" / "exp", "last.ckpt")
    with pytest.raises(UserError, match="'exp' exists already"):
        open_experiment(tmp_path / "result", "exp", resume=str(stray))


def test_resuming_what_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such checkpoint"):
        open_experiment(tmp_path, None, resume=str(tmp_path / "nowhere"))
    folder = make_experiment(tmp_path / "exp")
    with pytest.raises(UserError, match=r"exp: this experiment ended before its first checkpoint; give .* with -a"):
        open_experiment(tmp_path, None, resume=str(folder))


@pytest.mark.parametrize("rank", RANKS)
def test_later_processes_find_what_the_first_has_made(tmp_path, monkeypatch, rank):
    make_experiment(tmp_path / "exp")
    monkeypatch.setenv(rank, "0")
    assert not is_launched_process()
    with pytest.raises(UserError):
        open_experiment(tmp_path, "exp")
    monkeypatch.setenv(rank, "1")
    assert is_launched_process()
    assert open_experiment(tmp_path, "exp") == Experiment(tmp_path / "exp")


def test_a_rank_that_is_no_number_is_told(monkeypatch):
    monkeypatch.setenv(RANKS[0], "abc")
    with pytest.raises(UserError, match=f"{RANKS[0]} is 'abc'; expected a number"):
        is_launched_process()


def test_json_is_written_whole(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_json({"loss": 1.5, "finished": True}, path)
    write_json({"loss": 0.5}, path)
    assert json.loads(path.read_text()) == {"loss": 0.5}
    with pytest.raises(TypeError):
        write_json({"loss": object()}, path)
    assert json.loads(path.read_text()) == {"loss": 0.5}
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]
