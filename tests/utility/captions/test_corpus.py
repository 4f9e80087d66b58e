"""utility/captions/corpus.py and caption_files.py: annotations of all kinds, what is missing, and the items."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mynah.utility.audio.corpus import Utterance, split_validation
from mynah.utility.captions.corpus import (
    CaptionCorpusConfig,
    CaptionedClip,
    ClipDataset,
    annotation_file,
    read_captioned_clips,
    split_validation_clips,
)
from mynah.utility.captions.files import read_captions
from mynah.utility.configuration.load import from_plain, to_plain
from mynah.utility.errors import UserError
from mynah.utility.video.files import read_clip
from mynah.utility.video.writing import write_clip

NAMES = ("abc-_123456_000001_000011", "v2.0 b", "c")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """VATEX/videos with three clips of 10 frames, wider than high, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("data") / "VATEX" / "videos"
    for number, name in enumerate(NAMES):
        path = folder / ("deep" if number == 2 else "") / f"{name}.{('mp4', 'mkv', 'avi')[number]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw = np.random.default_rng(number)
        write_clip(path, draw.integers(0, 256, (10, 32, 48, 3), dtype=np.uint8), 10)
    return folder


def vatex(path: Path, names=NAMES, key: str = "enCap") -> Path:
    path.write_text(json.dumps([{"videoID": name, key: [f"{name} one", f"{name}  two\n"]} for name in names]))
    return path


def clips_of(videos: Path, annotation: Path, **options) -> list[CaptionedClip]:
    config = CaptionCorpusConfig(file_path=str(videos), train=str(annotation), **options)
    return read_captioned_clips(config, "train", None).clips


def test_vatex_json_names_videos_and_captions(videos, tmp_path):
    clips = clips_of(videos, vatex(tmp_path / "a.json"))
    assert [clip.name for clip in clips] == list(NAMES)
    assert [Path(clip.path).stem for clip in clips] == list(NAMES)
    assert all(Path(clip.path).is_absolute() for clip in clips)
    assert clips[0].captions == (f"{NAMES[0]} one", f"{NAMES[0]} two")


def test_the_language_decides_which_captions(videos, tmp_path):
    entries = [{"videoID": "c", "enCap": ["a cat"], "chCap": ["一只猫"]}]
    (tmp_path / "a.json").write_text(json.dumps(entries), encoding="utf-8")
    assert clips_of(videos, tmp_path / "a.json")[0].captions == ("a cat",)
    assert clips_of(videos, tmp_path / "a.json", language="zh")[0].captions == ("一只猫",)


@pytest.mark.parametrize("form", ["json", "csv", "tsv"])
def test_plain_tables_have_a_caption_a_row(videos, tmp_path, form):
    rows = [("c.avi", "first"), (NAMES[0], "hello, world"), ("deep/c.avi", "other name"), ("c.avi", "second")]
    path = tmp_path / f"a.{form}"
    if form == "json":
        path.write_text(json.dumps([{"video": video, "caption": caption} for video, caption in rows]))
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            table = csv.writer(file, delimiter={"csv": ",", "tsv": "\t"}[form])
            table.writerows([("id", "video", "caption"), *((number, *row) for number, row in enumerate(rows))])
    clips = clips_of(videos, path)
    assert {clip.name: clip.captions for clip in clips} == {
        "c.avi": ("first", "second"),
        NAMES[0]: ("hello, world",),
        "deep/c.avi": ("other name",),
    }
    assert {Path(clip.path).name for clip in clips} == {"c.avi", f"{NAMES[0]}.mp4"}


def test_a_video_is_found_by_path_id_or_another_suffix(videos, tmp_path):
    def found(name: str) -> str:
        (tmp_path / "a.json").write_text(json.dumps([{"video": name, "caption": "x"}]))
        return Path(clips_of(videos, tmp_path / "a.json")[0].path).relative_to(videos).as_posix()

    for name in ("c", "c.avi", "deep/c", "deep/c.avi", "c.mp4", str(videos / "deep" / "c.avi")):
        assert found(name) == "deep/c.avi"
    assert found("v2.0 b") == "v2.0 b.mkv"
    with pytest.raises(UserError, match="none of the 1 clips"):
        found("v2")


def test_a_path_wins_over_an_equal_name_elsewhere(tmp_path):
    frame = np.zeros((1, 16, 16, 3), np.uint8)
    for name in ("a/x.mp4", "x.mp4"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(tmp_path / "v" / name, frame, 10)
    for name in ("x.mp4", "x"):
        (tmp_path / "a.json").write_text(json.dumps([{"video": name, "caption": "x"}]))
        assert clips_of(tmp_path / "v", tmp_path / "a.json")[0].path == str(tmp_path / "v" / "x.mp4")


def test_official_names_are_found_beside_the_videos_and_above(videos, tmp_path):
    config = CaptionCorpusConfig(file_path=str(videos))
    assert annotation_file(config, "dev") is None
    with pytest.raises(UserError, match=r"vatex_validation_v1\.0\.json.*-o datarc\.dev=FILE"):
        read_captioned_clips(config, "dev", None)
    above = vatex(videos.parent / "vatex_training_v1.0.json")
    beside = vatex(videos / "vatex_public_test_english_v1.1.json", names=["c"])
    try:
        assert annotation_file(config, "train") == above
        assert annotation_file(config, "test") == beside
        assert len(read_captioned_clips(config, "train", None).clips) == 3
        assert len(read_captioned_clips(config, "test", None).clips) == 1
    finally:
        above.unlink()
        beside.unlink()


def test_missing_clips_are_listed_counted_and_the_share_is_said(videos, tmp_path, caplog):
    annotation = vatex(tmp_path / "a.json", names=[*NAMES, "gone_1", "gone_2"])
    config = CaptionCorpusConfig(file_path=str(videos), dev=str(annotation), max_bad_fraction=0.0)
    with caplog.at_level(logging.WARNING, "mynah"):
        coverage = read_captioned_clips(config, "dev", tmp_path / "logs" / "missing.txt")
    assert (coverage.num_listed, coverage.missing, coverage.share) == (5, ["gone_1", "gone_2"], 0.6)
    assert (tmp_path / "logs" / "missing.txt").read_text() == "gone_1\tmissing\ngone_2\tmissing\n"
    assert "dev: 2 of 5 clips are missing" in caplog.text
    assert "60.0 %" in caplog.text
    assert str(tmp_path / "logs" / "missing.txt") in caplog.text


def test_the_list_of_missing_clips_grows_with_every_split_and_never_twice(videos, tmp_path):
    log = tmp_path / "skipped_files.txt"
    log.write_text("/data/broken.mp4\ttruncated\n")
    for split, gone in (("dev", "gone_1"), ("test", "gone_2"), ("dev", "gone_1")):
        annotation = vatex(tmp_path / f"{split}.json", names=[*NAMES, gone])
        read_captioned_clips(CaptionCorpusConfig(file_path=str(videos), **{split: str(annotation)}), split, log)
    assert log.read_text().splitlines() == ["/data/broken.mp4\ttruncated", "gone_1\tmissing", "gone_2\tmissing"]


def test_without_any_clip_it_is_an_error(videos, tmp_path):
    with pytest.raises(UserError, match=r"none of the 7 clips.*g0, g1, g2, g3, g4 and 2 more"):
        clips_of(videos, vatex(tmp_path / "a.json", names=[f"g{number}" for number in range(7)]))


BAD_ANNOTATIONS = {
    "no JSON": ("a.json", "{", "not well-formed"),
    "no list": ("a.json", '{"info": {}, "annotations": []}', "expected a list of mappings"),
    "empty list": ("a.json", "[]", "expected a list of mappings"),
    "other entries": ("a.json", '["c"]', "expected a list of mappings"),
    "no captions": ("a.json", '[{"videoID": "c"}]', r"no captions in language en \(key enCap\)$"),
    "another language": ("a.json", '[{"videoID": "c", "chCap": ["x"]}]', "it has zh: set datarc.language"),
    "some without captions": (
        "a.json",
        '[{"videoID": "c", "enCap": ["x"]}, {"videoID": "d"}]',
        r"entry 1 \(d\): enCap",
    ),
    "some without an id": ("a.json", '[{"videoID": "c", "enCap": ["x"]}, {"enCap": []}]', "entry 1: videoID must be"),
    "captions no list": ("a.json", '[{"videoID": "c", "enCap": "x"}]', "must be a list of texts"),
    "captions no texts": ("a.json", '[{"videoID": "c", "enCap": [1]}]', "must be a list of texts"),
    "only empty captions": ("a.json", '[{"videoID": "c", "enCap": [" "]}]', "holds no captions"),
    "unknown keys": (
        "a.json",
        '[{"clip": "c", "text": "x"}]',
        "entry 0: video must be a text, it has only clip, text",
    ),
    "caption no text": ("a.json", '[{"video": "c", "caption": 3}]', "entry 0: caption must be a text, got 3"),
    "no column": ("a.csv", "video,text\nc,x\n", "no column caption; its columns are video, text"),
    "two columns of a name": ("a.csv", "video,caption,caption\nc,x,y\n", "two columns of the same name"),
    "comma in a caption": (
        "a.csv",
        "video,caption\nc,a dog, and a cat\n",
        "row 2: more values than the 2 columns.*quotes",
    ),
    "tab in a caption": ("a.tsv", "video\tcaption\nc\tx\ty\n", "row 2: more values than the 2 columns.*tabs"),
    "open quote": ("a.csv", 'video,caption\nc,"x\nd,y\n', "not well-formed"),
    "too deep": ("a.json", "[" * 100000, "not well-formed"),
    "short row": ("a.csv", "video,caption\nc\n", "row 2"),
    "no rows": ("a.tsv", "video\tcaption\n", "no rows"),
    "not UTF-8": ("a.csv", b"video,caption\nc,\xff\xfe\n", "not well-formed"),
}


@pytest.mark.parametrize("what", BAD_ANNOTATIONS)
def test_a_bad_annotation_is_one_clear_error(videos, tmp_path, what):
    name, content, message = BAD_ANNOTATIONS[what]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        clips_of(videos, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_annotation_and_a_missing_folder_are_named(videos, tmp_path):
    with pytest.raises(UserError, match=r"captions not found: .*nowhere\.json"):
        clips_of(videos, tmp_path / "nowhere.json")
    with pytest.raises(UserError, match="folder not found"):
        clips_of(tmp_path / "nowhere", vatex(tmp_path / "a.json"))


def test_the_configuration_survives_yaml_and_refuses_impossible_values(tmp_path):
    config = CaptionCorpusConfig(file_path="/data", language="zh", frame_cache="auto", captions_per_clip=3)
    assert from_plain(CaptionCorpusConfig, to_plain(config), "test") == config
    wrong = {"language": "de", "max_bad_fraction": 1.5, "captions_per_clip": 0}
    with pytest.raises(UserError) as caught:
        from_plain(CaptionCorpusConfig, wrong, "test")
    assert all(key in str(caught.value) for key in wrong)


def test_the_frame_cache_is_nowhere_in_the_users_cache_or_where_it_says(own_cache, tmp_path):
    folders = {"": None, "auto": own_cache / "frames", str(tmp_path): tmp_path}
    for text, folder in folders.items():
        assert CaptionCorpusConfig(frame_cache=text).frame_cache_folder() == folder


def test_held_out_clips_follow_from_their_names_as_utterances_do():
    clips = [CaptionedClip(f"/v/{number}.mp4", f"clip{number}", ("x",)) for number in range(300)]
    train, validation_items = split_validation_clips(clips, 0.1, seed=3)
    assert 15 <= len(validation_items) <= 45
    assert sorted([*train, *validation_items], key=clips.index) == clips
    fewer = [clip for clip in clips if clip != validation_items[0]]
    assert split_validation_clips(fewer, 0.1, seed=3)[1] == validation_items[1:]
    assert split_validation_clips(clips, 0.1, seed=4)[1] != validation_items
    utterances = [Utterance(f"/v/{number}.mp4", 1, "clips", f"{number}") for number in range(300)]
    named = [CaptionedClip(each.path, f"clips/{each.name}", ("x",)) for each in utterances]
    expected = [each.path for each in split_validation(utterances, 0.1, seed=3)[1]]
    assert [clip.path for clip in split_validation_clips(named, 0.1, seed=3)[1]] == expected
    for few in (clips[:0], clips[:1]):
        assert split_validation_clips(few, 0.5, seed=0) == (few, [])
    assert [len(side) for side in split_validation_clips(clips[:2], 0.01, seed=0)] == [1, 1]
    assert split_validation_clips(clips, 0, seed=0) == (clips, [])


@pytest.fixture
def clips(videos, tmp_path) -> list[CaptionedClip]:
    return clips_of(videos, vatex(tmp_path / "a.json"))


def test_items_have_frames_captions_and_names(clips):
    dataset = ClipDataset(clips, num_frames=4, frame_size=16, seed=0)
    assert len(dataset) == 3
    assert dataset.lengths == [4, 4, 4]
    for index, clip in enumerate(clips):
        item = dataset[index]
        assert torch.equal(item["signal"], read_clip(clip.path, 4, 16))
        assert item["signal"].shape == (4, 3, 16, 24)
        assert item["label"] == list(clip.captions)
        assert (item["name"], item["fixed"]) == (clip.name, True)


def test_a_random_crop_is_a_square_of_the_frames_and_follows_from_seed_pass_and_index(clips):
    dataset = ClipDataset(clips, 4, 16, seed=1, random_crop=True)
    places = set()
    for pass_index in range(20):
        item = dataset[pass_index, 0]
        whole = read_clip(clips[0].path, 4, 16)
        [place] = [left for left in range(9) if torch.equal(whole[..., left : left + 16], item["signal"])]
        places.add(place)
        assert item["fixed"] is False
        assert torch.equal(dataset[pass_index, 0]["signal"], item["signal"])
        assert item["rng_key"] == (1, pass_index, 0)
    assert len(places) > 4
    other = ClipDataset(clips, 4, 16, seed=2, random_crop=True)
    assert any(not torch.equal(other[number, 0]["signal"], dataset[number, 0]["signal"]) for number in range(5))


def test_captions_are_drawn_without_repeating_before_all_were():
    clip = CaptionedClip("/nowhere.mp4", "x", tuple("abcde"))
    dataset = ClipDataset([clip], 2, 16, seed=0, captions_per_clip=3)
    dataset._read = lambda *_request: torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    drawn = [dataset[number, 0]["label"] for number in range(200)]
    assert all(len(set(captions)) == 3 for captions in drawn)
    assert all(90 <= sum(letter in captions for captions in drawn) <= 150 for letter in "abcde")
    assert drawn[7] == dataset[7, 0]["label"]
    dataset.captions_per_clip = 12
    counts = {letter: dataset[0, 0]["label"].count(letter) for letter in "abcde"}
    assert sorted(counts.values()) == [2, 2, 2, 3, 3]
    dataset.captions_per_clip = 1
    assert len({dataset[number, 0]["label"][0] for number in range(60)}) == 5


def test_an_unreadable_clip_is_an_item_that_says_why(clips, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    bad = [CaptionedClip(str(tmp_path / name), "bad", ("x",)) for name in ("bad.mp4", "gone.mp4")]
    for frame_cache in (None, tmp_path / "cache"):
        dataset = ClipDataset([*bad, clips[0]], 4, 16, seed=0, frame_cache=frame_cache)
        items = [dataset[index] for index in range(3)]
        assert items[0]["signal"] is None
        assert items[0]["name"] == bad[0].path
        assert items[0]["error"].startswith("no video")
        assert items[1] == {"signal": None, "name": bad[1].path, "error": "missing"}
        assert items[2]["signal"] is not None


def test_a_cache_gives_the_same_items(clips, tmp_path):
    plain = ClipDataset(clips, 4, 16, seed=0, random_crop=True, captions_per_clip=1)
    cached = ClipDataset(clips, 4, 16, seed=0, random_crop=True, captions_per_clip=1, frame_cache=tmp_path / "cache")
    for key in [(0, 0), (1, 0), (0, 2), (1, 2)]:
        item, expected = cached[key], plain[key]
        assert torch.equal(item.pop("signal"), expected.pop("signal"))
        assert item == expected
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


def test_worker_processes_read_the_same(clips):
    dataset = ClipDataset(clips, 4, 16, seed=0)
    for index, item in enumerate(DataLoader(dataset, batch_size=None, num_workers=2)):
        assert torch.equal(item["signal"], dataset[index]["signal"])


def test_videos_of_one_name_in_two_folders_must_be_told_apart(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "c.mp4").touch()
    annotation = tmp_path / "a.json"
    annotation.write_text('[{"video": "c", "caption": "x"}]')
    with pytest.raises(UserError, match=r"one/c\.mp4 or .*two/c\.mp4\? .* such as 'one/c'"):
        clips_of(tmp_path, annotation)
    (tmp_path / "two" / "c.mp4").unlink()
    (tmp_path / "two" / "c.mp4").symlink_to(tmp_path / "one" / "c.mp4")  # the same file: no question
    assert len(clips_of(tmp_path, annotation)) == 1
    annotation.write_text('[{"video": "two/c", "caption": "x"}]')
    assert [clip.path for clip in clips_of(tmp_path, annotation)] == [str(tmp_path / "two" / "c.mp4")]


def test_quotes_in_a_tsv_are_characters_and_clips_without_captions_are_told(videos, tmp_path, caplog):
    (tmp_path / "a.tsv").write_text('video\tcaption\nc\t"fast cars\nd\ta "cat"\n')
    assert read_captions(tmp_path / "a.tsv", "en") == {"c": ['"fast cars'], "d": ['a "cat"']}
    (tmp_path / "a.json").write_text('[{"videoID": "c", "enCap": ["x \\ud83d"]}, {"videoID": "d", "enCap": []}]')
    assert read_captions(tmp_path / "a.json", "en") == {"c": ["x ?"]}
    assert "1 videos have no captions and are left out, such as d" in caplog.text


def test_empty_columns_of_spreadsheets_are_nothing(tmp_path):
    (tmp_path / "a.csv").write_text("video,caption,,\nc,x,,\nd,y,,,\n")
    assert read_captions(tmp_path / "a.csv", "en") == {"c": ["x"], "d": ["y"]}
