"""Corpora made by Mynah are whole or not there, made once, and made again in another version."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mynah.utility.demo.cached_corpus import cached_corpus


def write_one_file(folder: Path) -> None:
    (folder / "made.txt").write_text(str(folder))


def test_a_corpus_is_made_once(own_cache):
    place = cached_corpus("Some", "1", "nothing", write_one_file)
    content = (place / "made.txt").read_text()
    assert cached_corpus("Some", "1", "nothing", write_one_file) == place
    assert (place / "made.txt").read_text() == content
    assert cached_corpus("Some", "2", "nothing", write_one_file) != place
    assert own_cache in place.parents


def test_an_interrupted_making_leaves_nothing_under_the_name(own_cache):
    def fail(folder: Path) -> None:
        write_one_file(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_corpus("Some", "1", "nothing", fail)
    assert not [path for path in own_cache.rglob("*") if path.is_file()]
    assert (cached_corpus("Some", "1", "nothing", write_one_file) / "made.txt").is_file()


def test_of_two_at_once_the_second_waits_and_takes_the_corpus_of_the_first(own_cache):
    calls = []

    def slow(folder: Path) -> None:
        calls.append(folder)
        time.sleep(0.3)
        write_one_file(folder)

    with ThreadPoolExecutor(2) as pool:
        places = list(pool.map(lambda _: cached_corpus("Some", "1", "nothing", slow), range(2)))
    assert len(calls) == 1 and places[0] == places[1]
    assert [path.name for path in places[0].parent.iterdir()] == ["Some"]


def test_without_locks_the_slower_takes_the_faster_ones_corpus(own_cache, monkeypatch):
    monkeypatch.setattr("mynah.utility.storage.fcntl", None)

    def slow(folder: Path) -> None:
        faster = cached_corpus("Some", "1", "nothing", write_one_file)
        (faster / "faster.txt").touch()
        write_one_file(folder)

    place = cached_corpus("Some", "1", "nothing", slow)
    assert (place / "faster.txt").is_file()
    assert [path.name for path in place.parent.iterdir()] == ["Some"]


def test_what_a_killed_process_has_left_is_removed_by_the_next(own_cache):
    child = os.fork()
    if not child:
        cached_corpus("Some", "1", "nothing", lambda folder: os.kill(os.getpid(), signal.SIGKILL))
    os.waitpid(child, 0)
    assert len(list((own_cache / "demo" / "1").iterdir())) == 1
    place = cached_corpus("Some", "1", "nothing", write_one_file)
    assert [path.name for path in place.parent.iterdir()] == ["Some"]
