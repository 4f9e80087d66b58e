"""Corpora made by Mynah are whole or not there, made once, and made again in another version."""

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


def test_of_two_processes_at_once_the_slower_takes_the_faster_ones_corpus(own_cache):
    def slow(folder: Path) -> None:
        faster = cached_corpus("Some", "1", "nothing", write_one_file)
        (faster / "faster.txt").touch()
        write_one_file(folder)

    place = cached_corpus("Some", "1", "nothing", slow)
    assert (place / "faster.txt").is_file()
    assert [path.name for path in place.parent.iterdir()] == ["Some"]
