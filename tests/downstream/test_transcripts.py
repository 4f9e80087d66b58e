"""Reading of LibriSpeech's folders and of tables: what is missing, doubled or odd is told."""

import logging

import numpy as np
import pytest
import soundfile

from mynah import ROOT
from mynah.downstream.asr_ctc.expert import DownstreamExpert
from mynah.downstream.interfaces import SPLITS, UpstreamInfo
from mynah.downstream.transcripts import read_folder
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "asr_ctc" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)
SMALL = ("model.projector_size=4", "model.lstm_size=4")
TEXTS = {
    "train": ["HE HOPED", "IT'S STEW"],
    "more": ["FOR DINNER"],
    "dev-clean": ["TURNIPS"],
    "test-clean": ["AND", "A Z"],
}


@pytest.fixture
def librispeech(tmp_path):
    root = tmp_path / "LibriSpeech"
    for speaker, (folder, texts) in enumerate(TEXTS.items(), start=1):
        chapter = root / folder / f"{speaker}" / "7"
        chapter.mkdir(parents=True)
        lines = []
        for number, text in enumerate(texts):
            soundfile.write(chapter / f"{speaker}-7-{number:04d}.flac", np.full(4000 + 100 * number, 0.1), 16000)
            lines.append(f"{speaker}-7-{number:04d} {text}\n")
        (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return root


def corpus_of(root, *overrides: str) -> dict[str, list[str]]:
    given = (f"datarc.file_path={root}", "datarc.train=[train, more]", *SMALL, *overrides)
    config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=given)
    expert = DownstreamExpert(UPSTREAM, config)
    return {split: [text for _, text in expert.corpus[split]] for split in SPLITS}


def test_each_split_has_the_texts_of_its_folders(librispeech):
    assert corpus_of(librispeech) == {
        "train": ["FOR DINNER", "HE HOPED", "IT'S STEW"],
        "dev": ["TURNIPS"],
        "test": ["AND", "A Z"],
    }


def test_a_text_belongs_to_the_file_of_its_name(librispeech):
    config = load_config(
        DownstreamExpert.Config,
        files=[CONFIG],
        overrides=[f"datarc.file_path={librispeech}", "datarc.train=[train]", *SMALL],
    )
    expert = DownstreamExpert(UPSTREAM, config)
    items = [expert.get_dataset("train")[index] for index in range(2)]
    found = {len(item["signal"]): expert.decode_label(item["label"]) for item in items}
    assert found == {4000: "HE HOPED", 4100: "IT'S STEW"}


def test_a_table_has_the_same_texts(librispeech):
    flac = sorted((librispeech / "train").rglob("*.flac"))
    table = librispeech / "t.tsv"
    rows = [
        f"{flac[0]}\the  hoped\ttrain",
        f"{flac[1]}\tI\tdev",
        *(f"{path}\tA\ttest" for path in librispeech.rglob("4-7-0000.flac")),
    ]
    table.write_text("\n".join(["path\ttext\tsplit", *rows]))
    assert corpus_of(table) == {"train": ["HE HOPED"], "dev": ["I"], "test": ["A"]}


def test_a_missing_folder_is_told_with_those_that_are_there(librispeech):
    with pytest.raises(
        UserError, match=r"no folder other and no folder no \(there are dev-clean, more, test-clean, train\)"
    ):
        corpus_of(librispeech, "datarc.train=[other, no]")
    with pytest.raises(UserError, match=r"there are none.*datarc.file_path"):
        corpus_of(librispeech / "gone")


def test_a_folder_in_two_splits_is_refused(librispeech):
    with pytest.raises(UserError, match=r"dev: train is named twice"):
        corpus_of(librispeech, "datarc.dev=[train]")
    with pytest.raises(UserError, match="test: names no folder"):
        corpus_of(librispeech, "datarc.test=[]")


def test_audio_without_a_transcript_is_told_and_a_little_of_it_is_left_out(librispeech, caplog):
    path = librispeech / "test-clean" / "4" / "7" / "4-7.trans.txt"
    path.write_text(path.read_text().replace("4-7-0001", "4-7-0009"))
    with pytest.raises(UserError, match=r"1 of 6 audio files .* have no transcript, such as .*4-7-0001.flac"):
        corpus_of(librispeech)
    with caplog.at_level(logging.WARNING, "mynah"):
        assert corpus_of(librispeech, "datarc.max_bad_fraction=0.2")["test"] == ["AND"]
    assert "no transcript" in caplog.text and "1 transcripts" in caplog.text and "no usable audio" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1-7-0000 A\n1-7-0000 B\n", "line 2: 1-7-0000 has a second transcript"),
        ("1-7-0000 A\n\n1-7-0001\n", "line 3: expected an utterance and its text, got '1-7-0001'"),
        (b"1-7-0000 \xff\n", "cannot be read as transcripts"),
        (None, r"no transcripts \(\*.trans.txt\)"),
    ],
)
def test_broken_transcripts_are_told(content, said, tmp_path):
    if content is not None:
        (tmp_path / "1-7.trans.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said):
        read_folder(tmp_path)


def test_two_files_of_one_name_are_told(librispeech):
    chapter = librispeech / "test-clean" / "4" / "7"
    soundfile.write(chapter / "4-7-0000.wav", np.full(4000, 0.1), 16000)
    with pytest.raises(UserError, match=r"another file of .*test-clean is called 4-7-0000 too"):
        corpus_of(librispeech)


def test_odd_characters_are_named_or_their_utterances_left_out(librispeech):
    path = librispeech / "train" / "1" / "7" / "1-7.trans.txt"
    path.write_text("1-7-0000 HE HÔPED 3\u200b\n1-7-0001 IT'S | STEW\n")
    with pytest.raises(
        UserError,
        match=r"2 texts \(2 of the 3 of train\) have 4 characters that are not A to Z.*\\u200b.*skip_unknown=true",
    ):
        corpus_of(librispeech)
    assert corpus_of(librispeech, "datarc.skip_unknown=true")["train"] == ["FOR DINNER"]
