"""From datasets to batches: substitutes for unreadable items, the log of them, and the loaders' order."""

import logging

import pytest
import torch
from torch.utils.data import Dataset

from mynah.utility.errors import UserError
from mynah.utility.training.config import LoaderConfig
from mynah.utility.training.loaders import (
    MAX_SUBSTITUTES,
    BadFileLog,
    ReadableItems,
    bad_items,
    evaluation_loader,
    training_loader,
)
from mynah.utility.training.trainer import interruptions_reported


class Items(Dataset):
    """Items that say their key; those of `bad` cannot be read."""

    def __init__(self, count: int, bad: set[int] = frozenset()):
        self.count, self.bad = count, bad

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> dict:
        number, index = key
        if index in self.bad:
            return {"signal": None, "name": f"file{index}", "error": "broken"}
        return {"signal": torch.full((3,), float(index)), "name": f"file{index}", "key": (number, index)}


def keys_and_bad(items: list[dict]) -> tuple[list, list]:
    return [item["key"] for item in items if "key" in item], bad_items(items)


def load(count: int = 23, bad: set[int] = frozenset(), num_batches: int = 12, start: int = 0, **config) -> list:
    options = {"num_batches": num_batches, "start": start, "seed": 1, "rank": 0, "world_size": 1}
    config = LoaderConfig(**{"batch_size": 4, "num_workers": 0, **config})
    loader = training_loader(
        Items(count, bad), [16000 + index for index in range(count)], config, keys_and_bad, **options
    )
    return list(loader)


def test_an_unreadable_item_gives_way_to_the_next_readable_one():
    items = ReadableItems(Items(5, bad={2, 3}))
    assert items[(7, 1)]["key"] == (7, 1)
    assert items[(7, 1)]["bad"] == []
    assert items[(7, 2)]["key"] == (7, 4)
    assert items[(7, 2)]["bad"] == [("file2", "broken"), ("file3", "broken")]
    assert len(items) == 5


def test_the_next_of_the_last_item_is_the_first():
    assert ReadableItems(Items(3, bad={2}))[(0, 2)]["key"] == (0, 0)


@pytest.mark.parametrize("count", [3, 200])
def test_nothing_but_unreadable_files_is_an_error_that_names_the_first(count):
    tried = min(count, MAX_SUBSTITUTES)
    with pytest.raises(UserError, match=f"{tried} files in a row could not be read, the first file1: broken"):
        ReadableItems(Items(count, bad=set(range(count))))[(0, 1)]


def test_training_batches_keep_their_size_and_name_what_was_replaced():
    for keys, bad in load(count=24, bad={5}, num_batches=6):
        assert len(keys) == 4
        assert bad in ([], [("file5", "broken")])
    assert sum(len(bad) for _, bad in load(count=24, bad={5}, num_batches=6)) == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_loader_gives_the_tail_whatever_the_workers(num_workers):
    whole = load()
    assert load(start=7, num_workers=num_workers) == whole[7:]
    assert len(whole) == 12


def test_batches_by_seconds_bound_the_padded_audio():
    sizes = [len(keys) for keys, _ in load(num_batches=6, max_batch_seconds=5.0)]
    assert set(sizes) <= {1, 2, 3, 4}
    assert max(sizes) == 4  # four of little more than a second


def test_evaluation_gives_everything_once_and_leaves_the_unreadable_out():
    loader = evaluation_loader(Items(10, bad={4}), list(range(10)), LoaderConfig(num_workers=0), keys_and_bad, 0, 1)
    keys = [key for keys, _ in loader for key in keys]
    assert sorted(keys) == [(0, index) for index in range(10) if index != 4]
    assert [entry for _, bad in loader for entry in bad] == [("file4", "broken")]


def test_the_log_names_each_bad_file_once_and_counts_it(tmp_path, caplog):
    path = tmp_path / "experiment" / "skipped_files.txt"
    bad_files = BadFileLog(path, num_files=100, max_bad_fraction=0.05)
    with caplog.at_level(logging.WARNING, logger="mynah"):
        bad_files.note([])
        assert not path.exists()
        bad_files.note([("a.wav", "empty"), ("b.wav", "not audio")])
        bad_files.note([("a.wav", "empty")])
    assert path.read_text() == "a.wav\tempty\nb.wav\tnot audio\n"
    assert len(caplog.records) == 2
    assert "b.wav: not audio (2 so far" in caplog.text


def test_what_an_earlier_leg_of_the_run_has_listed_is_not_listed_again(tmp_path):
    for bad in ([("a.wav", "empty")], [("a.wav", "empty"), ("b.wav", "empty")]):
        BadFileLog(tmp_path / "skipped.txt", num_files=100, max_bad_fraction=0.05).note(bad)
    assert (tmp_path / "skipped.txt").read_text() == "a.wav\tempty\nb.wav\tempty\n"


def test_every_process_lists_what_it_could_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    bad_files = BadFileLog(tmp_path / "skipped.txt", num_files=100, max_bad_fraction=0.05)
    bad_files.note([("a.wav", "empty")])
    assert (tmp_path / "skipped.txt").read_text() == "a.wav\tempty\n"


def test_more_bad_files_than_allowed_are_an_error(tmp_path):
    bad_files = BadFileLog(tmp_path / "skipped.txt", num_files=100, max_bad_fraction=0.05)
    bad_files.note([(f"{index}.wav", "empty") for index in range(5)])
    with pytest.raises(UserError, match=r"6 of 100 files could not be read.*max_bad_fraction=0.05"):
        bad_files.note([("6.wav", "empty")])


def test_a_users_error_in_a_worker_arrives_without_the_workers_traceback(tmp_path):
    class Broken(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, key):
            return {"signal": None, "name": "a.wav", "error": "damaged"}

    loader = training_loader(
        Broken(), [1] * 4, LoaderConfig(batch_size=2, num_workers=1), list,
        num_batches=2, start=0, seed=0, rank=0, world_size=1,
    )  # fmt: skip
    with pytest.raises(UserError) as error, interruptions_reported(lambda: "continue"):
        list(loader)
    assert str(error.value) == "4 files in a row could not be read, the first a.wav: damaged"


def test_signals_that_are_padded_later_are_not_pinned(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    loaders = [evaluation_loader([1, 2], [1, 1], LoaderConfig(), list, 0, 1, pin=pin) for pin in (True, False)]
    assert [loader.pin_memory for loader in loaders] == [True, False]


def test_bad_files_of_all_processes_count_together_and_all_of_them_give_up(tmp_path):
    bad = BadFileLog(tmp_path / "skipped.txt", num_files=10, max_bad_fraction=0.2)
    bad.note([("a.wav", "damaged")], lambda count: count + 1)  # another process has one more
    with pytest.raises(UserError, match="3 of 10 files could not be read"):
        bad.note([], lambda count: count + 2)


def test_workers_do_not_inherit_the_allocator_of_the_training_process(monkeypatch):
    asked = []
    monkeypatch.setattr("mynah.utility.training.allocator._set", lambda *option: asked.append(option) or True)
    loader = training_loader(
        [{"signal": 1}], [1], LoaderConfig(batch_size=1), list, num_batches=1, start=0, seed=0, rank=0, world_size=1
    )
    loader.worker_init_fn(0)
    assert asked == [(-4, 65536), (-1, 128 * 1024)]
