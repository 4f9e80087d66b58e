"""The scripts, as they are run from a shell."""

import csv
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

from mynah import ROOT

SCRIPTS = ROOT / "scripts"
pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="the scripts are in a clone only")


def run(script, *arguments, ends_in=0):
    """What a script says."""
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    assert done.returncode == ends_in and "Traceback" not in said, said
    return said


# -- plot_over_steps -----------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """A table of two tasks; phones have no filter banks."""
    cells = [
        f"cell,{task},m_{step},{metric},0.{5 + step // 1000},0.01"
        for task, metric in (("words", "accuracy,max"), ("phones", "per,min"))
        for step in (0, 1000, 3000)
    ]
    head = "row,task,upstream,metric,mode,test,deviation"
    lines = [
        head,
        *cells,
        "cell,words,fbank,accuracy,max,0.9,",
        "cell,phones,fbank,per,min,,",
        "run,words,m_0,,,0.1,",
    ]
    (tmp_path / "results.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_a_table_becomes_a_curve_for_each_task(table):
    picture = table / "curve.png"
    run("plot_over_steps", table, picture, "fbank")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert image.width > 1.8 * image.height  # two panels
    assert (np.abs(pixels.astype(int) - (0x1F, 0x77, 0xB4)).sum(1) < 30).sum() > 200  # the curves' blue


def test_what_cannot_be_drawn_is_said(table):
    picture = table / "curve.png"
    assert "fbnak: no such row" in run("plot_over_steps", table, picture, "fbnak", ends_in=1)
    with (table / "results.csv").open("a") as file:
        file.write("cell,emotion,fbank,accuracy,max,0.4,\n")
    assert "emotion: no row is called NAME_STEP" in run("plot_over_steps", table, picture, ends_in=1)
    assert "results.csv" in run("plot_over_steps", table / "nowhere", picture, ends_in=1)
    run("plot_over_steps", ends_in=2)


# -- librispeech_as_voxceleb1 --------------------------------------------------------------------------------


def test_samples_are_copied_whatever_a_file_holds_them_in(tmp_path):
    folder = tmp_path / "corpus" / "anna" / "1"
    folder.mkdir(parents=True)
    samples = np.random.default_rng(0).uniform(-1, 1, 4000)
    integers = np.rint(samples * 32767).astype(np.int16)
    soundfile.write(folder / "a.wav", integers, 16000)
    soundfile.write(folder / "b.wav", samples, 16000, subtype="FLOAT")
    soundfile.write(folder / "c.flac", samples, 16000, subtype="PCM_24")
    soundfile.write(folder / "d.wav", 2 * samples, 16000, subtype="FLOAT")  # too loud for 16 bits
    run("librispeech_as_voxceleb1", tmp_path / "corpus", tmp_path / "vox")
    copies = [soundfile.read(path, dtype="int16")[0] for path in sorted((tmp_path / "vox/wav/anna/1").iterdir())]
    assert np.array_equal(copies[0], integers)
    for copy, expected in zip(copies[1:], (samples, samples, np.clip(2 * samples, -1, 1)), strict=True):
        assert np.abs(copy / 32768 - expected).max() <= 1 / 32768


def test_a_corpus_that_cannot_be_copied_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no folders of speakers" in run(
        "librispeech_as_voxceleb1",
        tmp_path / "empty",
        tmp_path / "vox",
        "--trials",
        9,
        "--trial-speakers",
        3,
        ends_in=1,
    )
    (tmp_path / "bad" / "anna").mkdir(parents=True)
    (tmp_path / "bad" / "anna" / "a.wav").write_text("no audio")
    assert "a.wav" in run("librispeech_as_voxceleb1", tmp_path / "bad", tmp_path / "vox", ends_in=1)


# -- transcript_tables ---------------------------------------------------------------------------------------


def test_tables_of_librispeech_and_speechocean762(tmp_path):
    for speaker in range(5):
        folder = tmp_path / "libri" / str(speaker) / "7"
        folder.mkdir(parents=True)
        (folder / f"{speaker}-7.trans.txt").write_text(f"{speaker}-7-0000 HELLO WORLD\n")
    run("transcript_tables", tmp_path / "libri", tmp_path / "libri.csv")
    rows = list(csv.DictReader((tmp_path / "libri.csv").open(newline="")))
    assert [row["split"] for row in rows] == ["train", "train", "train", "dev", "test"]
    assert rows[0]["text"] == "HELLO WORLD" and rows[0]["path"] == str(tmp_path / "libri/0/7/0-7-0000.flac")

    ocean = tmp_path / "ocean"
    (ocean / "resource").mkdir(parents=True)
    (ocean / "test").mkdir()
    (ocean / "resource" / "text-phone").write_text("1.0\tHH_B AH0_E\n1.1\tW_B\n")
    (ocean / "test" / "text").write_text("1 ho w\n")
    (ocean / "test" / "wav.scp").write_text("1 WAVE/SPEAKER1/1.WAV\n")
    run("transcript_tables", ocean, tmp_path / "ocean.csv")
    row = next(csv.DictReader((tmp_path / "ocean.csv").open(newline="")))
    assert (row["phones"], row["text"], row["path"]) == ("HH AH0 W", "HO W", str(ocean / "WAVE/SPEAKER1/1.WAV"))


def test_a_folder_without_transcripts_gives_no_table(tmp_path):
    assert "holds neither" in run("transcript_tables", tmp_path / "nowhere", tmp_path / "a.csv", ends_in=1)
    assert not (tmp_path / "a.csv").exists()
    run("transcript_tables", ends_in=2)


# -- convert_swinbert ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["out.ckpt", "--frame-size", "0"], "--frame-size: expected 1 or more, got 0"),
        (["out.ckpt", "--num-frames", "-2"], "--num-frames: expected 1 or more, got -2"),
        (["."], "a folder; give the name of the checkpoint to write"),
    ],
)
def test_arguments_of_the_conversion_that_cannot_be_meant_are_told(given, said):
    assert said in run("convert_swinbert", "model.bin", "vocab.txt", *given, ends_in=2)
