"""Phone recognition: lexicons, SUPERB's outputs, the end of the sequence."""

import json

import numpy as np
import pytest
import soundfile
import torch

from mynah import ROOT
from mynah.downstream.interfaces import SPLITS, UpstreamInfo
from mynah.downstream.phone_ctc.expert import DownstreamExpert
from mynah.downstream.phone_ctc.lexicon import SUPERB_PHONES, read_lexicon
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "phone_ctc" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)
TEXTS = {
    "train-clean-100": {"1-2-0000": "THE CAT", "1-2-0001": "A CAT"},
    "dev-clean": {"3-4-0000": "THE"},
    "test-clean": {"5-6-0000": "CAT A"},
}
LEXICON = "THE\tDH AH0\nTHE\tDH IY0\nCAT K AE1 T\n;;; a comment\n\nA  AH0\n"


@pytest.fixture
def librispeech(tmp_path):
    """LibriSpeech's folders of four utterances, and lexicon.txt in the same place."""
    root = tmp_path / "LibriSpeech"
    for folder, texts in TEXTS.items():
        for name, text in texts.items():
            chapter = root / folder / name.replace("-", "/").rsplit("/", 1)[0]
            chapter.mkdir(parents=True, exist_ok=True)
            soundfile.write(chapter / f"{name}.flac", np.full(4000, 0.1), 16000)
            with (chapter / f"{name.rsplit('-', 1)[0]}.trans.txt").open("a") as file:
                file.write(f"{name} {text}\n")
    (root / "lexicon.txt").write_text(LEXICON)
    return root


def build(root, *overrides: str, state: dict | None = None) -> DownstreamExpert:
    given = (f"datarc.file_path={root}", f"datarc.lexicon={root / 'lexicon.txt'}", *overrides)
    config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=given)
    torch.manual_seed(0)
    return DownstreamExpert(UPSTREAM, config, state)


def test_words_become_phones_by_their_first_pronunciation(librispeech):
    assert read_lexicon(str(librispeech / "lexicon.txt")) == {"THE": "DH AH0", "CAT": "K AE1 T", "A": "AH0"}
    expert = build(librispeech)
    said = {split: [text for _, text in expert.corpus[split]] for split in SPLITS}
    assert said == {"train": ["DH AH0 K AE1 T", "AH0 K AE1 T"], "dev": ["DH AH0"], "test": ["K AE1 T AH0"]}
    [item] = expert.get_dataset("test")
    assert expert.decode_label(item["label"]) == "K AE1 T AH0"


def test_the_outputs_are_those_of_superb(librispeech):
    expert = build(librispeech)
    assert len(SUPERB_PHONES) == len(set(SUPERB_PHONES)) == 71
    assert expert.model[-1].out_features == 74 and expert.model[0].out_features == 256
    assert expert.indices["<eos>"] == 1 and expert.indices["<unk>"] == 2 and expert.indices["SIL"] == 3


def test_every_sequence_ends_with_eos_that_nobody_sees(librispeech):
    expert = build(librispeech)
    eos, ah = expert.indices["<eos>"], expert.indices["AH0"]
    assert expert.encode_label("DH AH0")[1:] == [ah, eos]
    assert expert.decode_label([eos, ah, eos]) == "AH0"
    without = build(librispeech, "model.eos=false")
    assert without.encode_label("AH0") == [ah]
    expert.model = torch.nn.Identity()
    says = torch.nn.functional.one_hot(torch.tensor([[ah, 0, eos, 0]]), 74).float()
    records: dict[str, list] = {}
    expert("dev", says, torch.tensor([4]), [[ah, eos]], records, ["a"])
    assert expert.log_records("dev", records)["per"] == 0 and records["hypothesis"] == ["AH0"]
    [result] = expert.predict(says, torch.tensor([4]))
    assert result == {"text": "AH0"}


def test_words_without_a_pronunciation_are_named_or_left_out(librispeech, caplog):
    path = librispeech / "lexicon.txt"
    path.write_text(path.read_text().replace("A  AH0", ""))
    with pytest.raises(
        UserError, match=r"2 texts \(.* of .*\) have 1 words that .*lexicon.txt does not have: A .*skip_unknown=true"
    ):
        build(librispeech)
    expert = build(librispeech, "datarc.skip_unknown=true")
    assert [len(expert.corpus[split]) for split in SPLITS] == [1, 1, 0]
    assert "left out" in caplog.text


def test_a_table_may_have_the_phones_themselves(librispeech):
    rows = [
        f"{path},{split},K AE T"
        for path, split in zip(sorted(librispeech.rglob("*.flac")), [*SPLITS, "train"], strict=True)
    ]
    table = librispeech / "phones.csv"
    table.write_text("\n".join(["path,split,phones", *rows]))
    given = (f"datarc.file_path={table}", "datarc.lexicon=")
    with pytest.raises(
        UserError, match=r"4 texts \(.* of .*\) have 1 phones that are not among SUPERB's \(model.phones=corpus"
    ):
        build(librispeech, *given)
    expert = build(librispeech, *given, "model.phones=corpus")
    assert expert.symbols == ["<eos>", "<unk>", "AE", "K", "T"]
    assert expert.encode_label("K ZH") == [4, 2, 1]


def test_rebuilt_expert_needs_neither_data_nor_lexicon(librispeech, tmp_path):
    expert = build(librispeech)
    rebuilt = build(tmp_path / "gone", state=json.loads(json.dumps(expert.state())))
    rebuilt.load_state_dict(expert.state_dict(), strict=True)
    features, lengths = torch.randn(2, 9, 8), torch.tensor([9, 3])
    assert rebuilt.predict(features, lengths) == expert.predict(features, lengths)


def test_the_error_rate_is_over_the_phones_of_all_utterances(librispeech):
    expert = build(librispeech)
    records = {"reference": ["K AE1 T", "AH0"], "hypothesis": ["K T", "DH IY0"], "loss": [0, 0], "name": ["a", "b"]}
    assert expert.log_records("dev", records)["per"] == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [("WORD\n", "line 1: the word 'WORD' has no phones"), ("", "is empty"), (b"\xff\xfe\x00", "cannot be read")],
)
def test_broken_lexicons_are_told(text, said, tmp_path):
    (tmp_path / "lexicon.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=said):
        read_lexicon(str(tmp_path / "lexicon.txt"))


def test_librispeech_without_a_lexicon_is_told(librispeech):
    with pytest.raises(UserError, match=r"give one as datarc.lexicon"):
        build(librispeech, "datarc.lexicon=")
    with pytest.raises(UserError, match=r"there is no file .*gone.txt"):
        build(librispeech, "datarc.lexicon=gone.txt")


def test_a_table_of_texts_without_a_lexicon_is_told_of_both_ways(librispeech):
    table = librispeech / "texts.csv"
    table.write_text("path,split,text\na.wav,train,CAT\n")
    with pytest.raises(UserError, match=r"texts\.csv has no column phones; add it, or give datarc\.lexicon"):
        build(librispeech, f"datarc.file_path={table}", "datarc.lexicon=")


def test_the_recipe_is_that_of_superb():
    config = load_config(DownstreamExpert.Config, files=[CONFIG])
    trainer, loader = config.trainer, config.dataloader
    assert (config.optimizer.lr, loader.batch_size, trainer["accumulate_grad_batches"]) == (1e-2, 16, 2)
    assert (trainer["max_steps"], trainer["val_check_interval"], trainer["gradient_clip_val"]) == (
        100_000,
        2 * 1000,
        1,
    )
    assert (config.optimizer.name, config.optimizer.weight_decay, config.scheduler.name) == ("adamw", 0, "constant")


def test_the_demo_has_a_pronunciation_of_every_word(demo_cache):
    config = load_config(DownstreamExpert.Config, files=[CONFIG], demo=True)
    DownstreamExpert.use_demo_data(config)
    expert = DownstreamExpert(UPSTREAM, config)
    assert all(len(expert.get_dataset(split)) for split in SPLITS)
