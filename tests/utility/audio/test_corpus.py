"""utility/audio/corpus.py, with its length cache and manifests, on corpora of a few small files."""

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mynah.utility.audio import durations as length_cache
from mynah.utility.audio.corpus import CorpusConfig, SpeechDataset, Utterance, scan_corpora, split_validation
from mynah.utility.audio.files import audio_info
from mynah.utility.configuration.problems import validate
from mynah.utility.data.tables import read_manifest
from mynah.utility.errors import UserError
from mynah.utility.storage import cache_dir


def write(path: Path, samples: int = 4000, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(samples).uniform(-0.5, 0.5, samples)
    soundfile.write(path, wav, rate)
    return path


def scan(*roots: Path, min_samples: int = 1600, max_bad_fraction: float = 0.5, log_path: Path | None = None):
    return scan_corpora(
        {f"corpus{number}": str(root) for number, root in enumerate(roots)},
        min_samples=min_samples,
        max_bad_fraction=max_bad_fraction,
        log_path=log_path,
        progress=False,
    )


@pytest.fixture
def headers_read(monkeypatch) -> list[str]:
    """The files whose headers were read, by name, as it grows."""
    names = []

    def spy(path):
        names.append(Path(path).name)
        return audio_info(path)

    monkeypatch.setattr(length_cache, "audio_info", spy)
    return names


def test_lengths_are_those_of_a_full_read(shared_data):
    root = shared_data / "LibriSpeech" / "test-other"
    utterances = scan(root)
    assert len(utterances) == len(list(root.rglob("*.flac")))
    for utterance in utterances[::10]:
        assert utterance.samples == len(soundfile.read(utterance.path)[0])
        assert root / utterance.name == Path(utterance.path)


def test_order_is_by_corpus_name_then_path(tmp_path):
    for name in ("2/b.wav", "2/a.flac", "1/z.wav", "1/sub/y.wav"):
        write(tmp_path / name)
    paths = {"zebra": str(tmp_path / "1"), "ant": str(tmp_path / "2")}
    found = scan_corpora(paths, min_samples=1, max_bad_fraction=0, log_path=None, progress=False)
    assert [(each.corpus, each.name) for each in found] == [
        ("ant", "a.flac"),
        ("ant", "b.wav"),
        ("zebra", "sub/y.wav"),
        ("zebra", "z.wav"),
    ]


def test_lengths_are_at_16_khz(tmp_path):
    write(tmp_path / "a.wav", samples=8001, rate=8000)
    write(tmp_path / "b.wav", samples=44100, rate=44100)
    assert [each.samples for each in scan(tmp_path)] == [16002, 16000]


def test_a_second_scan_reads_no_headers(tmp_path, headers_read):
    for number in range(70):
        write(tmp_path / f"{number:02d}.wav", samples=2000 + number)
    first = scan(tmp_path)
    assert len(headers_read) == 70
    assert scan(tmp_path) == first
    assert len(headers_read) == 70


def test_the_cache_notices_changed_new_and_deleted_files(tmp_path, headers_read):
    for name in "abc":
        write(tmp_path / f"{name}.wav")
    scan(tmp_path)
    headers_read.clear()
    write(tmp_path / "a.wav", samples=6000)
    state = (tmp_path / "b.wav").stat()
    os.utime(tmp_path / "b.wav", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    (tmp_path / "c.wav").unlink()
    write(tmp_path / "d.wav", samples=7000)
    assert [(each.name, each.samples) for each in scan(tmp_path)] == [
        ("a.wav", 6000),
        ("b.wav", 4000),
        ("d.wav", 7000),
    ]
    assert sorted(headers_read) == ["a.wav", "b.wav", "d.wav"]
    remembered = json.loads(length_cache.cache_file(tmp_path).read_text())["files"]
    assert sorted(remembered) == ["a.wav", "b.wav", "d.wav"]


def test_the_cache_is_of_the_place_not_of_its_spelling(tmp_path, headers_read):
    write(tmp_path / "real" / "a.wav")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    scan(tmp_path / "real")
    (through_link,) = scan(tmp_path / "link")
    assert headers_read == ["a.wav"]
    assert through_link.path == str(tmp_path / "link" / "a.wav")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1, "files": {"a.wav": 3}}', '{"version": 1}', "\x00"]
)
def test_a_damaged_cache_is_read_anew_with_a_word(tmp_path, caplog, content):
    write(tmp_path / "a.wav")
    expected = scan(tmp_path)
    cache = length_cache.cache_file(tmp_path)
    cache.write_text(content)
    assert scan(tmp_path) == expected
    assert "ignoring the length cache" in caplog.text
    assert json.loads(cache.read_text())["files"]["a.wav"][2] == 4000


def test_an_unwritable_cache_is_a_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MYNAH_CACHE", str(tmp_path / "file"))
    write(tmp_path / "corpus" / "a.wav")
    assert len(scan(tmp_path / "corpus")) == 1
    assert "cannot write" in caplog.text


def test_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("MYNAH_CACHE", "/some/where")
    assert cache_dir() == Path("/some/where").absolute()
    monkeypatch.delenv("MYNAH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/other")
    assert cache_dir() == Path("/other/mynah").absolute()
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "mynah"


@pytest.fixture
def flawed(tmp_path) -> Path:
    """A corpus of 6 good files, and 4 bad ones."""
    root = tmp_path / "flawed"
    for number in range(6):
        write(root / f"good{number}.wav")
    write(root / "short.wav", samples=1599)
    (root / "empty.wav").touch()
    (root / "text.mp3").write_text("no audio")
    (root / "link.wav").symlink_to(root / "nowhere")
    return root


def test_bad_files_are_skipped_named_and_counted_once(flawed, tmp_path, caplog):
    log_path = tmp_path / "experiment" / "skipped_files.txt"
    utterances = scan(flawed, log_path=log_path)
    assert [each.name for each in utterances] == [f"good{number}.wav" for number in range(6)]
    reasons = dict(line.split("\t") for line in log_path.read_text().splitlines())
    assert {Path(path).name: reason.split(":")[0].split(" (")[0] for path, reason in reasons.items()} == {
        "short.wav": "too short",
        "empty.wav": "empty",
        "text.mp3": "not readable as audio",
        "link.wav": "missing",
    }
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [f"skipping 4 of 10 audio files that cannot be used, listed in {log_path}"]


def test_what_an_earlier_leg_of_a_run_has_listed_stays_listed(flawed, tmp_path):
    log_path = tmp_path / "skipped_files.txt"
    earlier = f"{flawed / 'good1.wav'}\ttruncated\n"
    log_path.write_text(f"{earlier}{flawed / 'empty.wav'}\tan earlier reason\n")
    scan(flawed, log_path=log_path)
    text = log_path.read_text()
    assert text.startswith(earlier) and len(text.splitlines()) == 5 and "an earlier reason" not in text


def test_as_many_bad_files_as_allowed_pass_and_one_more_does_not(flawed, tmp_path):
    assert len(scan(flawed, max_bad_fraction=0.4)) == 6
    with pytest.raises(UserError, match=r"4 of 10 .*max_bad_fraction=0.39") as caught:
        scan(flawed, max_bad_fraction=0.39, log_path=tmp_path / "log.txt")
    assert f"{flawed / 'empty.wav'}: empty" in str(caught.value)
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 4


def test_a_file_mended_in_place_is_used_again(flawed):
    assert len(scan(flawed)) == 6
    (flawed / "link.wav").unlink()
    write(flawed / "link.wav")
    assert len(scan(flawed)) == 7


def test_a_corpus_without_a_usable_file_is_named_whatever_is_allowed(flawed, tmp_path):
    write(tmp_path / "tiny" / "a.wav", samples=10)
    with pytest.raises(UserError, match=r"corpus1: none of the 1 files of .*tiny is usable\n.*too short"):
        scan(flawed, tmp_path / "tiny", max_bad_fraction=1.0)


def test_missing_and_empty_corpora_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "one.wav")
    for name, reason in {"absent": "not found", "empty": "no audio", "one.wav": "folder, or a .csv"}.items():
        with pytest.raises(UserError, match=reason) as caught:
            scan(tmp_path / name)
        assert "corpus0" in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(ValueError, match="no corpus"):
        scan()


def test_permission_denied_is_said_in_the_log(tmp_path):
    if not hasattr(os, "geteuid"):
        pytest.skip("no POSIX permissions here")
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name in "abc":
            write(root / f"{name}.wav").chmod(0o644)
        (root / "b.wav").chmod(0o200)
        if user == 0:  # whom permissions do not bind
            os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=r"1 of 3 .*\n.*b.wav: permission denied"):
                scan(root, max_bad_fraction=0.1)
        finally:
            os.seteuid(user)


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t"), ("TSV", "\t")])
def test_a_manifest_lists_files_from_its_folder_or_anywhere(tmp_path, suffix, delimiter):
    inside = write(tmp_path / "data" / "in, side.wav")
    outside = write(tmp_path / "outside.wav", samples=5000)
    write(tmp_path / "data" / "unlisted.wav")
    rows = [
        ("label", "path"),
        ("x", f'"{inside.name}"' if delimiter == "," else inside.name),
        ("y", str(outside)),
        ("z", str(outside)),
    ]
    manifest = tmp_path / "data" / f"table.{suffix}"
    manifest.write_text("\ufeff" + "\n".join(delimiter.join(row) for row in rows), encoding="utf-8")
    assert {each.path: each.samples for each in scan(manifest)} == {str(inside): 4000, str(outside): 5000}
    assert [each.path for each in scan(manifest)] == sorted([str(inside), str(outside)])
    assert [row["label"] for row in read_manifest(manifest)] == ["x", "y", "z"]


def test_faulty_manifests_say_what_is_wrong(tmp_path):
    faults = {
        "file,label\na.wav,x\n": r"no column path; its columns are file, label",
        "": "its columns are none",
        "path\n": "no rows",
        "path,label\na.wav,x\n,y\n": "row 3: the path is empty",
    }
    manifest = tmp_path / "table.csv"
    for content, message in faults.items():
        manifest.write_text(content)
        with pytest.raises(UserError, match=message):
            scan(manifest)
    manifest.write_bytes(b"path\n\xff\xfe.wav\n")
    with pytest.raises(UserError, match="UTF-8"):
        scan(manifest)
    with pytest.raises(UserError, match=r"corpus0: manifest not found: .*absent\.csv"):
        scan(tmp_path / "absent.csv")


def named(count: int, folder: str = "/data") -> list[Utterance]:
    return [Utterance(f"{folder}/{number}.wav", 16000, "corpus", f"{number}.wav") for number in range(count)]


def test_about_the_asked_share_is_held_out_and_none_is_lost():
    utterances = named(2000)
    train, validation_items = split_validation(utterances, 0.05, seed=3)
    assert 60 <= len(validation_items) <= 140  # 100 expected; these bounds are 4 standard deviations away
    assert sorted(train + validation_items, key=utterances.index) == utterances
    assert split_validation(utterances, 0.05, seed=4)[1] != validation_items


def test_other_files_and_another_place_move_none_between_train_and_held_out():
    utterances = named(300)
    validation_items = {each.name for each in split_validation(utterances[::2], 0.2, seed=0)[1]}
    of_all = {each.name for each in split_validation(utterances, 0.2, seed=0)[1]}
    moved = {each.name for each in split_validation(named(300, "/elsewhere"), 0.2, seed=0)[1]}
    assert validation_items == of_all & {each.name for each in utterances[::2]}
    assert moved == of_all


@pytest.mark.parametrize("fraction", [1e-9, 0.5, 0.9])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_both_sides_get_at_least_one(fraction, count):
    for seed in range(20):
        train, validation_items = split_validation(named(count), fraction, seed)
        assert train
        assert validation_items


def test_nothing_is_held_out_of_one_or_for_a_fraction_of_zero():
    assert split_validation(named(1), 0.5, 0) == (named(1), [])
    assert split_validation(named(9), 0.0, 0) == (named(9), [])


def dataset(tmp_path: Path, max_samples: int | None = 1000, seed: int = 5, **options) -> SpeechDataset:
    for number in range(3):
        write(tmp_path / f"{number}.wav", samples=2000 + number)
    return SpeechDataset(scan(tmp_path, min_samples=1), max_samples, seed, **options)


def test_a_crop_lies_where_its_key_says(tmp_path):
    data = dataset(tmp_path)
    for pass_index in range(4):
        item = data[(pass_index, 2)]
        whole, _ = soundfile.read(item["name"], dtype="float32")
        start = int(np.random.default_rng([5, pass_index, 2]).integers(2002 - 1000 + 1))
        np.testing.assert_array_equal(item["signal"].numpy(), whole[start : start + 1000])
        assert item["rng_key"] == (5, pass_index, 2)
    assert torch.equal(data[2]["signal"], data[(0, 2)]["signal"])


def test_crops_change_with_pass_and_seed_and_reach_both_ends(tmp_path):
    data = dataset(tmp_path, max_samples=1998)
    whole, _ = soundfile.read(data[0]["name"], dtype="float32")
    first = {data[(pass_index, 0)]["signal"][0].item() for pass_index in range(30)}
    assert first == set(whole[:3].tolist())
    drawn = [[data[(pass_index, 0)]["signal"][0].item() for pass_index in range(9)] for data.seed in (5, 6)]
    assert drawn[0] != drawn[1]


def test_short_or_uncropped_utterances_come_whole(tmp_path):
    assert dataset(tmp_path, max_samples=None).lengths == [2000, 2001, 2002]
    data = dataset(tmp_path, max_samples=2001)
    assert data.lengths == [2000, 2001, 2001]
    assert [len(data[index]["signal"]) for index in range(len(data))] == data.lengths


def test_files_that_turn_bad_after_the_scan_are_named_not_raised(tmp_path):
    data = dataset(tmp_path)
    soundfile.write(tmp_path / "0.wav", np.full(2000, np.nan), 16000, subtype="FLOAT")
    write(tmp_path / "1.wav", samples=500)
    (tmp_path / "2.wav").unlink()
    items = [data[index] for index in range(3)]
    assert [item["signal"] for item in items] == [None] * 3
    assert [Path(item["name"]).name for item in items] == ["0.wav", "1.wav", "2.wav"]
    assert [item["error"] for item in items] == [
        "holds NaN or infinite samples",
        "shorter than when the corpus was scanned",
        "missing",
    ]


def test_trimming_drops_silence_before_the_crop_is_drawn(tmp_path):
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, 48000).astype(np.float32)
    wav[:16000] *= 1e-4
    wav[32000:] *= 1e-4
    soundfile.write(tmp_path / "a.wav", wav, 16000, subtype="FLOAT")
    (utterance,) = scan(tmp_path)
    whole = SpeechDataset([utterance], None, 0, trim_silence=True)[0]["signal"]
    assert 16000 <= len(whole) <= 16000 + 2 * 2048
    crops = SpeechDataset([utterance], 3000, 0, trim_silence=True)
    for pass_index in range(10):
        crop = crops[(pass_index, 0)]["signal"]
        assert len(crop) == 3000
        assert crop.abs().max() > 0.4


def test_configuration_names_impossible_values():
    assert not validate(CorpusConfig, {})[1]
    bad = {"min_timestep": 0, "valid_fraction": 1.5, "max_bad_fraction": -1}
    assert [key for key, _ in validate(CorpusConfig, bad)[1]] == [*bad]
    together = {"file_path": {"unset": ""}, "max_timestep": 100, "min_timestep": 200}
    assert [key for key, _ in validate(CorpusConfig, together)[1]] == ["file_path.unset", "max_timestep"]


def test_a_corpus_may_move_without_losing_its_split(tmp_path):
    for number in range(30):
        write(tmp_path / "here" / f"{number}.wav", samples=1600 + number)
    before = split_validation(scan(tmp_path / "here"), 0.3, 1)[1]
    shutil.move(tmp_path / "here", tmp_path / "there")
    after = split_validation(scan(tmp_path / "there"), 0.3, 1)[1]
    assert [each.name for each in after] == [each.name for each in before]
