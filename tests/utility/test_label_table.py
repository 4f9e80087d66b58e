"""Reading a table of labelled files."""

import pytest

from utility.errors import UserError
from utility.label_table import LabelledFile, read_label_table


def test_paths_are_relative_to_the_table_or_absolute(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("split,path,label\ntrain,a/../b.wav,x\ndev,/data/c.wav,y\n")
    assert read_label_table(table) == {
        str(tmp_path / "b.wav"): LabelledFile("x", "train"),
        "/data/c.wav": LabelledFile("y", "dev"),
    }


def test_tabs_commas_in_quotes_and_byte_order_marks_are_understood(tmp_path):
    (tmp_path / "t.tsv").write_text("path\tlabel\tsplit\na, b.wav\tx\ttrain\nc.wav\ty\ttest\n")
    (tmp_path / "t.csv").write_bytes('\ufeffpath,label,split\n"a, b.wav",x,train\nc.wav,y,test\n'.encode())
    assert read_label_table(tmp_path / "t.tsv") == read_label_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.wav,x\n", "no column path, split; found file, label"),
        ("", "no column path, label, split; found nothing"),
        ("path,label,split\na.wav,x,train\nb.wav,y,valid\n", "line 3: the split is 'valid'"),
        ("path,label,split\na.wav,,train\n", "line 2: path and label"),
        ("path,label,split\na.wav\n", "line 2: the split is None"),
        ("path,label,split\na.wav,x,train\n./a.wav,y,dev\n", "line 3: ./a.wav is listed twice"),
        ("path,label,split\na.wav,x,train\nb.wav,x,dev\n", "at least two different labels"),
    ],
)
def test_mistakes_are_told_with_their_line(text, message, tmp_path):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_label_table(tmp_path / "labels.csv")


def test_missing_and_binary_files_are_told(tmp_path):
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    for name in ("missing.csv", "binary.csv"):
        with pytest.raises(UserError, match=f"{name} cannot be read as a table"):
            read_label_table(tmp_path / name)
