"""Features on disk: what is written is found by others, and what is damaged is never believed."""

import os
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file

from mynah.downstream import feature_store
from mynah.downstream.feature_cache import DiskCache
from mynah.downstream.feature_store import FeatureStore
from mynah.utility.storage import cache_dir

KEY = "0123456789abcdef" * 2
GIB = 2**30
RESERVE = feature_store.RESERVE
pytestmark = pytest.mark.usefixtures("any_disk")


@pytest.fixture
def folder():
    return cache_dir() / "features" / KEY


@pytest.fixture
def open_store(folder):
    """open_store(limit=) -> the store as a process would open it."""
    return lambda limit=GIB: FeatureStore(folder, {"upstream": "tiny"}, limit)


def tensors(count, size=100):
    generator = torch.Generator().manual_seed(0)
    return {f"name{index}": torch.randn(2, 3, size, generator=generator) for index in range(count)}


def fill(store, given):
    for name, tensor in given.items():
        store.add(name, tensor)
    store.flush()


def shards(folder):
    return sorted(folder.glob("*.safetensors"))


def test_what_one_process_writes_another_finds(open_store, folder):
    given, store = tensors(5), open_store()
    fill(store, given)
    assert len(shards(folder)) == 1
    assert load_file(shards(folder)[0]).keys() == given.keys()  # which other programs can read
    for reader in (store, open_store()):
        assert len(reader) == 5 and "other" not in reader and reader.get("other") is None
        for name, tensor in given.items():
            assert name in reader and torch.equal(reader.get(name), tensor)


def test_what_others_write_meanwhile_is_found(open_store, folder, monkeypatch):
    monkeypatch.setattr(feature_store, "REFRESH_SECONDS", 0.0)
    reader, writer = open_store(), open_store()
    assert "name1" not in reader
    fill(writer, tensors(2))
    assert "name1" in reader


def test_what_waits_is_there_and_is_written_when_much_has_come_together(open_store, folder, monkeypatch):
    monkeypatch.setattr(feature_store, "SHARD_BYTES", 10 * 2400)
    store = open_store()
    for number, (name, tensor) in enumerate(tensors(35).items(), start=1):
        store.add(name, tensor)
        assert name in store and torch.equal(store.get(name), tensor)
        assert len(shards(folder)) == number // 10
    assert len(open_store()) == 30


def test_two_processes_write_at_once(open_store, folder):
    one, other, given = open_store(), open_store(), tensors(6)
    for store in (one, other):
        fill(store, given)
    assert len(shards(folder)) == 2 and len(open_store()) == 6
    for store in (one, other, open_store()):
        assert all(torch.equal(store.get(name), tensor) for name, tensor in given.items())


@pytest.mark.parametrize("where", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("how", ["flip", "cut", "zeros", "empty", "text"])
def test_damaged_files_are_not_believed(open_store, folder, caplog, where, how):
    given = tensors(4)
    fill(open_store(), given)
    [path] = shards(folder)
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    if how == "flip":
        content[at] ^= 4
    elif how == "zeros":
        content[at : at + 64] = bytes(len(content[at : at + 64]))
    else:
        content = {"cut": content[:at], "empty": b"", "text": b"what is this?"}[how]
    path.write_bytes(content)
    store = open_store()
    for name, tensor in given.items():
        kept = store.get(name)
        assert kept is None or torch.equal(kept, tensor)
    assert any(name not in store for name in given)
    assert caplog.text.count("is damaged") == 1 and str(path) in caplog.text
    fill(store, given)
    again = open_store()
    assert all(torch.equal(again.get(name), tensor) for name, tensor in given.items())


def test_a_file_of_another_program_is_not_believed(open_store, folder, caplog):
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(tensors(2), folder / "foreign.safetensors")
    assert "name0" not in open_store()
    assert caplog.text.count("is damaged") == 1


def test_the_limit_counts_what_all_keys_take(open_store, folder, caplog):
    beside = folder.with_name("f" * 32)
    beside.mkdir(parents=True)
    (beside / "x.safetensors").write_bytes(bytes(50_000))
    store = open_store(limit=60_000)
    fill(store, tensors(3))
    assert len(shards(folder)) == 1 and not caplog.records
    more = {f"more{index}": torch.ones(3000) for index in range(3)}
    fill(store, more)
    assert len(shards(folder)) == 1
    assert all(name in store for name in more)  # as it has been told
    fill(store, {"late": torch.ones(3)})
    assert "late" not in store
    assert caplog.text.count("features.disk_gib") == 1


def test_what_was_used_longest_ago_makes_room_and_nothing_of_today(open_store, folder, caplog):
    caplog.set_level("INFO", "mynah")
    others = {name: folder.with_name(name * 32) for name in "abcd"}
    for days, other in enumerate(others.values()):  # d was used three days ago, a today
        other.mkdir(parents=True)
        (other / "x.safetensors").write_bytes(bytes(50_000))
        (other / "about.json").write_text("{}")
        os.utime(other / "about.json", (time.time() - days * 86_400 - 60,) * 2)
    mine = folder.with_name("notes")
    mine.mkdir()
    store = open_store(limit=205_000)
    fill(store, tensors(3))  # 7,200 bytes and their names
    assert len(shards(folder)) == 1
    assert [name for name, other in others.items() if other.exists()] == ["a", "b", "c"] and mine.exists()
    assert caplog.text.count("made room") == 1 and str(others["d"]) in caplog.text
    assert store.make_room(1_000_000) == store.room() < 1_000_000
    assert [name for name, other in others.items() if other.exists()] == ["a"] and len(shards(folder)) == 1


def test_features_that_are_read_are_in_use(open_store, folder, monkeypatch):
    fill(open_store(), tensors(1))
    store = open_store()
    os.utime(folder / "about.json", (0, 0))
    assert "name0" in store and feature_store.last_used(folder) == 0
    monkeypatch.setattr(feature_store, "TOUCH_SECONDS", 0.0)
    assert "name0" in store and time.time() - feature_store.last_used(folder) < 60


@pytest.mark.parametrize(("total", "kept_free"), [(1000 * GIB, 10 * GIB), (20 * GIB, 2 * GIB)])
def test_a_part_of_the_disk_stays_free(open_store, monkeypatch, total, kept_free):
    monkeypatch.setattr(feature_store, "RESERVE", RESERVE)
    store = open_store(limit=10 * GIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(total, 0, kept_free + 5))
    assert store.room() == 5


def test_files_that_cannot_be_written_are_said_once(open_store, folder, caplog, monkeypatch):
    store = open_store()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    fill(store, tensors(2))
    fill(store, tensors(4))
    assert caplog.text.count("No space left on device") == 1
    assert "name1" in store and "name3" not in store
    assert not list(folder.glob("*.safetensors")) and not list(folder.glob(".*"))


def test_what_has_been_found_stays_although_all_is_removed(open_store, folder):
    fill(open_store(), tensors(3))
    store = open_store()
    assert "name0" in store
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert torch.equal(store.get("name0"), tensors(1)["name0"])
    fill(store, {"new": torch.ones(3)})
    assert "new" in open_store()


def test_what_a_killed_process_left_is_removed_a_day_later(open_store, folder):
    folder.mkdir(parents=True)
    old, new = folder / ".a.tmp", folder / ".b.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    open_store()
    assert not old.exists() and new.exists()


def test_numbers_are_rounded_when_they_are_first_used(open_store):
    cache, states = DiskCache(open_store(), torch.float16), torch.randn(2, 5, 8)
    first = cache.keep("a", states)
    assert torch.equal(first, states.half()) and torch.equal(cache.get("a"), first)


def test_numbers_that_float16_does_not_reach_are_kept_as_float32(open_store):
    cache, states = DiskCache(open_store(), torch.float16), torch.tensor([[[1.0 + 1e-5, 70000.0]]])
    assert torch.equal(cache.keep("a", states), states)
    cache.flush()
    assert torch.equal(DiskCache(open_store(), torch.float16).get("a"), states)


def test_the_command_shows_and_removes_what_is_kept(open_store, folder, capsys, monkeypatch):
    from mynah.commands import features as command

    def run(*arguments):
        status = command.run(command.parse_arguments(arguments=list(arguments)))
        return status, capsys.readouterr().out

    assert run() == (0, f"0 kinds of features, 0.0 MiB in {folder.parent}\n")
    fill(open_store(), tensors(3))
    other = folder.with_name("f" * 32)
    other.mkdir()
    (other / "about.json").write_text("[")
    (folder.parent / "mine").mkdir()
    text = run()[1]
    assert text.startswith("0123456789ab  tiny (no checkpoint)") and "3 signals" in text and "unknown" in text
    with pytest.raises(command.UserError, match="--empty 9: 0 of the kept keys begin so; there are: 0123456789ab"):
        run("--empty", "9")
    assert run("--empty", "0123")[1].startswith("removed 0123456789ab")
    assert not folder.exists() and other.exists()
    run("--empty")
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]
    assert run("--empty")[1] == "nothing is kept\n"
