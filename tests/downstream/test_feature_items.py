"""Items of a task whose features are known come without their signals, and only these."""

import shutil

import pytest
import torch

from mynah.downstream.feature_cache import FeatureCache, MemoryCache
from mynah.downstream.feature_items import FeatureItems
from mynah.downstream.module import collate
from mynah.utility.audio.corpus import scan_corpora
from mynah.utility.audio.labelled import LabelledSpeechDataset
from mynah.utility.captions.corpus import CaptionCorpusConfig, ClipDataset, read_captioned_clips
from mynah.utility.training.config import LoaderConfig
from mynah.utility.training.loaders import evaluation_loader, training_loader

LONGEST = 12000


@pytest.fixture
def utterances(corpus, tmp_path):
    shutil.copytree(corpus, tmp_path / "corpus")
    files = {"tones": str(tmp_path / "corpus")}
    return scan_corpora(files, min_samples=1, max_bad_fraction=0, log_path=None, progress=False)


def items_of(utterances, max_samples=LONGEST, repeats=0, seed=3, trim=False):
    labels = [index % 4 for index in range(len(utterances))]
    return FeatureItems(LabelledSpeechDataset(utterances, labels, max_samples, seed, trim), repeats)


def cache_of(*keys):
    cache = MemoryCache(10**9)
    for key in keys:
        cache.keep(key, torch.zeros(1, 1, 1))
    return cache


@pytest.mark.parametrize("trim", [False, True])
def test_an_item_without_its_signal_is_the_item_but_for_it(utterances, trim):
    items = items_of(utterances, repeats=2, trim=trim)
    for key in ((0, 0), (1, 5), (4, 7)):
        whole, known = items[key], items[(*key, True)]
        assert len(whole.pop("signal")) and not len(known.pop("signal"))
        if trim:  # where the sound begins is not known without reading it
            assert whole.pop("start") >= 0 and known.pop("start") is None
        assert whole == known


def test_items_of_known_features_are_known_by_the_state_of_their_file(utterances):
    items = items_of(utterances, None)
    key = items[0, 3]["key"]
    assert utterances[3].path in key
    assert items.is_known((0, 3), cache_of(key)) and items.is_known((7, 3), cache_of(key))
    assert not items.is_known((0, 4), cache_of(key))
    assert not items.is_known((0, 3), FeatureCache())


def keys_of(items, pass_index=0):
    return [items[pass_index, index]["key"] for index in range(len(items))]


def test_each_thing_that_changes_a_signal_changes_its_key(utterances, tmp_path):
    whole = keys_of(items_of(utterances, None))
    assert len(set(whole)) == len(utterances) and None not in whole
    assert not set(whole) & set(keys_of(items_of(utterances, None, trim=True)))
    crops = keys_of(items_of(utterances, repeats=1))
    longer = [each.samples > LONGEST for each in utterances]
    assert any(longer) and not all(longer)
    for other in (items_of(utterances, repeats=1, seed=4), items_of(utterances, LONGEST - 1, repeats=1)):
        assert [one != two for one, two in zip(crops, keys_of(other), strict=True)] == longer
    assert [one != two for one, two in zip(crops, whole, strict=True)] == longer

    path = tmp_path / "corpus" / "speaker0" / "chapter" / "0.wav"
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert [one != two for one, two in zip(whole, keys_of(items_of(utterances, None)), strict=True)].count(True) == 1
    (tmp_path / "corpus").rename(tmp_path / "moved")
    peeked = items_of(utterances, None).dataset.peek((0, 0))
    assert peeked["source"] is None
    assert not items_of(utterances, None).is_known((0, 0), cache_of(*whole))


def test_the_key_of_a_crop_tells_where_it_is(utterances):
    """Two crops of one file have one key where they are the same samples, and never otherwise."""
    items, found = items_of(utterances, repeats=3), {}
    for pass_index in range(7):
        for index in range(len(items)):
            item = items[pass_index, index]
            signal = found.setdefault(item["key"], item["signal"])
            assert torch.equal(signal, item["signal"])
    longer = sum(each.samples > LONGEST for each in utterances)
    assert len(found) == len(utterances) + 2 * longer


def test_crops_that_never_come_again_have_no_key(utterances):
    items = items_of(utterances)
    for index, each in enumerate(utterances):
        assert (items[0, index]["key"] is None) == (each.samples > LONGEST)
    assert items.num_changing == sum(each.samples > LONGEST for each in utterances)


def test_what_will_be_kept_is_counted(utterances):
    shorter = [each.samples for each in utterances if each.samples <= LONGEST]
    longer = len(utterances) - len(shorter)
    assert sorted(items_of(utterances).kept_lengths) == sorted(shorter)
    assert sorted(items_of(utterances, repeats=3).kept_lengths) == sorted(shorter + 3 * longer * [LONGEST])


class Plain:
    """A dataset as tasks wrote it before there was `peek`."""

    lengths = (5, 6)

    def __len__(self):
        return 2

    def __getitem__(self, key):
        return {"signal": torch.zeros(5), "label": 0, "name": f"item{key[1]}", "fixed": key[1] == 0}


def test_datasets_without_peek_are_read_every_time():
    items = FeatureItems(Plain(), repeats=2)
    assert not items.has_sources
    assert [items[0, index]["key"] for index in range(2)] == ["item0", None]
    assert not items.is_known((0, 0), cache_of("item0"))


@pytest.mark.parametrize("crop", [False, True])
def test_clips_are_told_apart_by_file_and_crop(clips, crop):
    config = CaptionCorpusConfig(file_path=str(clips / "videos"))
    dataset = ClipDataset(read_captioned_clips(config, "dev", None).clips, 4, 24, seed=1, random_crop=crop)
    items = FeatureItems(dataset, repeats=2)
    for key in ((0, 0), (3, 1)):
        whole, known = items[key], items[(*key, True)]
        assert whole.pop("signal").dtype == torch.uint8 and known.pop("signal") is not None
        known.pop("length")
        assert whole == known
    assert (items[0, 0]["key"] == items[1, 0]["key"]) is not crop
    assert items[0, 0]["key"] == items[2, 0]["key"]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_have_the_same_items_in_the_same_order_whatever_is_known(utterances, workers):
    items = items_of(utterances, None)
    known = set(keys_of(items)[::2])
    config = LoaderConfig(batch_size=5, eval_batch_size=5, num_workers=workers)
    place = {"rank": 0, "world_size": 1}

    def batches(cache):
        is_known = None if cache is None else (lambda key: items.is_known(key, cache))
        more = {"num_batches": 6, "start": 1, "seed": 2}
        yield from training_loader(items, items.lengths, config, collate, is_known=is_known, **more, **place)
        yield from evaluation_loader(items, items.lengths, config, collate, is_known=is_known, **place)

    for read, asked in zip(batches(None), batches(cache_of(*known)), strict=True):
        for name in ("names", "labels", "keys", "bad", "audio_seconds"):
            assert read[name] == asked[name]
        assert [key in known for key in asked["keys"]] == [not len(signal) for signal in asked["signals"]]
