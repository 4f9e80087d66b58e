"""utility/audio/alignment_files.py and alignment_index.py: files made by hand and by praatio, and wrong ones."""

import pytest
from praatio import textgrid
from praatio.data_classes.interval_tier import IntervalTier
from praatio.data_classes.point_tier import PointTier

from mynah.utility.audio.alignment import Segment
from mynah.utility.audio.alignment_files import read_alignment, read_corpus_alignments, read_lines
from mynah.utility.audio.alignment_index import AlignmentIndex
from mynah.utility.errors import UserError

EXPECTED = [Segment(0.0, 0.25, "HH"), Segment(0.25, 0.5, "AY1")]
HEADER = "signal a\ntype 0\nseparator ;\nnfields 1\n#\n"
XLABEL = HEADER + "    0.25   -1 HH\t+asp\n    0.28   -1 \t+hoe\n    0.30   -1 -sth,+lar\n    0.5  -1 AY1\t2\n"


def grid(tiers: dict[str, list[tuple]], points: tuple[str, ...] = ()) -> textgrid.Textgrid:
    made = textgrid.Textgrid()
    for name, entries in tiers.items():
        made.addTier(IntervalTier(name, entries, 0, 1))
    for name in points:
        made.addTier(PointTier(name, [(0.1, "x")], 0, 1))
    return made


@pytest.mark.parametrize("layout", ["short_textgrid", "long_textgrid"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_textgrids_in_both_layouts_and_encodings_as_praatio_writes_them(tmp_path, layout, encoding):
    entries = [(0.0, 0.25, "ŋ"), (0.25, 0.5, 'a"b')]
    path = tmp_path / "a.TextGrid"
    grid({"words": [(0, 0.5, "hi")], "phones": entries}, ("tones",)).save(str(path), layout, includeBlankSpaces=True)
    path.write_bytes(path.read_text(encoding="utf-8").encode(encoding))
    assert read_alignment(path) == [Segment(*entry) for entry in entries]
    assert read_alignment(path, "words") == [Segment(0.0, 0.5, "hi")]


def test_the_only_tier_of_intervals_needs_no_name_and_of_two_one_is_asked_for(tmp_path):
    one, two = tmp_path / "one.TextGrid", tmp_path / "two.TextGrid"
    grid({"MAU": [(0, 0.5, "hi")]}, ("tones",)).save(str(one), "long_textgrid", includeBlankSpaces=True)
    grid({"KAN": [(0, 0.5, "a")], "MAU": [(0, 0.5, "b")]}).save(str(two), "long_textgrid", includeBlankSpaces=True)
    assert read_alignment(one) == [Segment(0.0, 0.5, "hi")]
    with pytest.raises(
        UserError, match=r"two\.TextGrid: which tier has the labels\? it has: KAN, MAU; .*datarc\.tier"
    ):
        read_alignment(two)
    with pytest.raises(UserError, match="no tier of intervals called 'phones'; it has: KAN, MAU"):
        read_alignment(two, "phones")


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.txt", "0 0.25 HH\n\n0.25 0.5 AY1\n"),
        ("a.txt", "\ufeffHH 0 0.25\r\nAY1\t0.25\t0.5\r\n"),
        ("a.phones", "0.25 0.5 AY1\n0 0.25 HH\n0.3 0.3 X\n"),
    ],
)
def test_tables_in_either_order_of_columns(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_alignment(tmp_path / name) == EXPECTED


def test_phones_that_are_numbers_are_the_third_column(tmp_path):
    (tmp_path / "a.txt").write_text("0 0.25 1\n0.25 0.5 2\n")
    assert read_alignment(tmp_path / "a.txt") == [Segment(0.0, 0.25, "1"), Segment(0.25, 0.5, "2")]


def test_xlabel_starts_where_the_line_before_ended_and_drops_remarks_and_blank_labels(tmp_path):
    (tmp_path / "a.lab").write_text(XLABEL)
    assert read_alignment(tmp_path / "a.lab") == [Segment(0.0, 0.25, "HH"), Segment(0.3, 0.5, "AY1")]


def test_fields_of_an_xlabel_may_be_divided_by_tabs(tmp_path):
    (tmp_path / "a.lab").write_text(HEADER + "\t0.25\t121\tHH\n\t0.5\t121\tAY1\n")
    assert read_alignment(tmp_path / "a.lab") == [Segment(0.0, 0.25, "HH"), Segment(0.25, 0.5, "AY1")]


def test_emodbs_times_are_where_a_label_begins_and_the_last_has_no_end(tmp_path):
    (tmp_path / "a.lablaut").write_text(HEADER + " 0.1 -1 HH\n 0.25 -1 AY\n 0.4 -1 \t+sth\n 0.6 -1 N\n 0.7 -1 .\n")
    assert read_alignment(tmp_path / "a.lablaut") == [
        Segment(0.1, 0.25, "HH"),
        Segment(0.25, 0.4, "AY"),
        Segment(0.6, 0.7, "N"),
    ]


def test_a_file_without_labels_is_an_utterance_of_which_nothing_is_said(tmp_path):
    (tmp_path / "a.lab").write_text("signal a\n#\n 0.5 -1 \t+sth\n")
    assert read_alignment(tmp_path / "a.lab") == []


def test_ctm_has_durations_and_confidences_that_may_be_missing(tmp_path):
    path = tmp_path / "all.ctm"
    path.write_text(";; remark\nb 1 0.25 0.25 AY1\nb 1 0 0.25 HH 0.9\na A 0.1 0.2 12\n")
    assert read_corpus_alignments(path) == {"b": EXPECTED, "a": [Segment(0.1, 0.3, "12")]}


def test_a_list_has_a_phone_for_each_10_ms(tmp_path):
    path = tmp_path / "converted_aligned_phones.txt"
    path.write_text("103-1240-0000 7 7 7 0 0 40\n103-1240-0001 1\n")
    found = read_corpus_alignments(path)
    assert found["103-1240-0000"] == [
        Segment(0.0, pytest.approx(0.03), "7"),
        Segment(pytest.approx(0.03), pytest.approx(0.05), "0"),
        Segment(pytest.approx(0.05), pytest.approx(0.06), "40"),
    ]
    assert found["103-1240-0001"] == [Segment(0.0, 0.01, "1")]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", b"0 0.2 a\n-0.1 0 b\n", r"a\.txt, line 2: it starts at -0\.1 s"),
        ("a.txt", b"0 0.2 a\n\n0.3 0.25 b\n", r"line 3: it ends at 0\.25 s, before its start at 0\.3 s"),
        ("a.txt", b"0 0.2 a\n0.1 0.3 b\n", r"line 2: b starts at 0\.1 s, while a lasts to 0\.2 s"),
        ("a.txt", b"0 0.2 a\n0.2 nan b\n", r"line 2: it ends at nan s"),
        ("a.txt", b"0 0.2 a\n0.2 inf b\n", r"line 2: it ends at inf s"),
        ("a.txt", b"0 0.2 a\n0.2 b 0.3\n", r"line 2: expected start end label, or label start end, in seconds"),
        ("a.txt", b"a 0 0.2\nb c d\n", r"line 2: expected start end label"),
        ("a.txt", b"0 0.2\n", r"line 1: expected three columns, start end label, got 2"),
        ("a.txt", b"", r"a\.txt is empty"),
        ("a.txt", b" \n\n", r"a\.txt is empty"),
        ("a.txt", "0 0.2 a\n0.2 0.3 \u00e4\n".encode("latin-1"), r"line 2: is not UTF-8"),
        ("a.txt", "0 0.2 a\n".encode("utf-16"), r"line 1: is not UTF-8"),
        ("a.lab", b"0.1 -1 a\n", "expected the header"),
        ("a.lab", b"#\n0.1 -1 a\nnow -1 b\n", r"line 3: expected end color label, got now -1 b"),
        ("a.lab", b"#\n0.2 -1 a\n0.1 -1 b\n", r"line 3: it ends at 0\.1 s, before its start at 0\.2 s"),
        ("a.csv", b"0,0.2,a\n", r"a\.csv: the format is told by the name's ending, which must be one of \.textgrid"),
        ("a", b"0 0.2 a\n", "the format is told by the name's ending"),
        ("a.textgrid", b"", "is not a TextGrid that can be read"),
        ("a.textgrid", b"\x00\x01\xff\xfe garbage", "is not a TextGrid that can be read"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_alignment(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_list_that_is_missing_is_not_called_an_alignment(tmp_path):
    with pytest.raises(UserError, match=rf"^{tmp_path}/train_split\.txt cannot be read: No such file"):
        read_lines(tmp_path / "train_split.txt")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
def test_a_truncated_textgrid_is_told_or_lacks_only_its_end(tmp_path, share):
    path = tmp_path / "a.TextGrid"
    grid({"phones": [(index / 10, (index + 1) / 10, f"p{index}") for index in range(10)]}).save(
        str(path), "long_textgrid", includeBlankSpaces=True
    )
    whole = path.read_text()
    path.write_text(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"a\.TextGrid"):
        read_alignment(path)


@pytest.mark.parametrize(
    "content, message",
    [
        ("a 1 0 x AY\n", "line 1: expected utterance channel start duration label"),
        ("a 1 0 0.1 AY\na 1 0.05 0.1 B\n", r"line 2: B starts at 0\.05 s, while AY lasts"),
        ("a 1 0 -0.1 AY\n", r"line 1: it ends at -0\.1 s"),
        ("a 1 2 3\na 4\n", "line 2: a is listed twice"),
        ("a 1 2 3\nb\n", "line 2: expected utterance id id"),
    ],
)
def test_wrong_files_of_a_corpus_are_told_with_their_line(tmp_path, content, message):
    (tmp_path / "all.txt").write_text(content)
    with pytest.raises(UserError, match=message):
        read_corpus_alignments(tmp_path / "all.txt")


def test_a_folders_files_are_found_by_stem_and_of_two_the_one_in_the_same_folder(tmp_path):
    for place, label in (("x", "X"), ("y", "Y")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.txt").write_text(f"0 1 {label}\n")
    (tmp_path / "b.lab").write_text(XLABEL)
    (tmp_path / "b.txt").write_text("hello there, a transcript\n")
    index = AlignmentIndex(tmp_path)
    assert index.find("y/a.wav") == [Segment(0.0, 1.0, "Y")]
    assert index.find("deep/er/b.flac") == [Segment(0.0, 0.25, "HH"), Segment(0.3, 0.5, "AY1")]
    assert index.find("c.wav") is None
    with pytest.raises(UserError, match=r"z/a\.wav: which is its alignment"):
        index.find("z/a.wav")


def test_an_alignment_is_that_of_one_recording(tmp_path):
    (tmp_path / "folder" / "x").mkdir(parents=True)
    (tmp_path / "folder" / "x" / "a.txt").write_text("0 1 X\n")
    (tmp_path / "all.ctm").write_text("a 1 0 1 X\n")
    for place in ("folder", "all.ctm"):
        index = AlignmentIndex(tmp_path / place)
        assert index.find("x/a.wav") == index.find("x/a.flac") == [Segment(0.0, 1.0, "X")]
        with pytest.raises(UserError, match="would be that of x/a and of y/a"):
            index.find("y/a.wav")


def test_a_folder_without_alignments_and_a_missing_one_are_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no alignment; known are files \*\.textgrid"):
        AlignmentIndex(tmp_path)
    with pytest.raises(UserError, match="alignments not found"):
        AlignmentIndex(tmp_path / "none")
