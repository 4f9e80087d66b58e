"""Reading a table of labelled files."""

import pytest

from mynah.utility.audio.corpus import scan_corpora
from mynah.utility.data.tables import read_split_table
from mynah.utility.errors import UserError


def test_rows_are_found_by_path_whatever_else_the_table_holds(tmp_path):
    table = tmp_path / "labels.tsv"
    table.write_text("split\tage\tpath\tlabel\ntrain\t7\ta, b.wav\tx\ndev\t\t/data/c.wav\ty\n")
    assert read_split_table(table, "label") == {
        str(tmp_path / "a, b.wav"): ("x", "train"),
        "/data/c.wav": ("y", "dev"),
    }


@pytest.mark.parametrize("spelled", ["{}/labels.csv", "{}/sub/../labels.csv", "labels.csv"])
def test_paths_are_those_of_the_scanned_utterances(spelled, tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    paths = ["a.wav", "./b.wav", "sub/../c.wav", str(tmp_path / "sub" / "d.wav")]
    for path in paths:
        soundfile.write(tmp_path / path, [0.1] * 2000, 16000)
    rows = [f"{path},{label},train\n" for path, label in zip(paths, "xyxy", strict=True)]
    (tmp_path / "labels.csv").write_text("path,label,split\n" + "".join(rows))
    table = spelled.format(tmp_path)
    scanned = scan_corpora({"table": table}, min_samples=1, max_bad_fraction=0.0, log_path=None)
    assert {utterance.path for utterance in scanned} == set(read_split_table(table, "label"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,split\na.wav,x,train\nb.wav,y,valid\n", "row 3: the split is 'valid'.* train, dev, test"),
        ("path,label,split\na.wav,,train\n", "row 2: the label is empty"),
        ("path,label,split\n\na.wav,x,train\n\n\nb.wav,,train\n", "row 6: the label is empty"),
        ("path,label,split\n\na.wav,x,train\n\na.wav,y,dev\n", "row 5: .*a.wav is listed twice"),
        ("path,label,split\na.wav\n", "row 2: the label and the split is empty"),
        ("path,label,split\na.wav,x,train\na.wav,y,dev\n", "row 3: .*a.wav is listed twice"),
        ("path,label\na.wav,x\n", "no column split"),
    ],
)
def test_mistakes_are_told_with_their_row(text, message, tmp_path):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_split_table(tmp_path / "labels.csv", "label")


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError, match=r"expected a \.csv or \.tsv file"):
        read_split_table(tmp_path, "label")
