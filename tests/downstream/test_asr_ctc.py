"""Speech recognition: the packed LSTM, SpecAugment, decoding, and a run that is resumed."""

import json

import numpy as np
import pytest
import soundfile
import torch

from mynah import ROOT
from mynah.downstream.asr_ctc import expert as asr
from mynah.downstream.asr_ctc.augmentation import AugmentConfig, augment, warp_time
from mynah.downstream.asr_ctc.expert import CHARACTERS, DownstreamExpert
from mynah.downstream.asr_ctc.model import Recognizer, RecognizerConfig
from mynah.downstream.build import TaskOptions
from mynah.downstream.interfaces import UpstreamInfo
from mynah.downstream.training import train
from mynah.utility.configuration.load import load_config
from mynah.utility.errors import UserError

CONFIG = ROOT / "downstream" / "asr_ctc" / "config.yaml"
UPSTREAM = UpstreamInfo(name="none", modality="speech", feature_size=8, samples_per_position=160)
TINY = ("model.projector_size=6", "model.lstm_size=5")
STATE = {"symbols": CHARACTERS}


def build(*overrides: str, state=STATE) -> DownstreamExpert:
    config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=[*TINY, *overrides])
    torch.manual_seed(0)
    return DownstreamExpert(UPSTREAM, config, state)


def test_the_recipe_is_that_of_superb():
    config = load_config(DownstreamExpert.Config, files=[CONFIG])
    trainer, augmentation = config.trainer, config.augmentation
    assert len(CHARACTERS) + 1 == 29 and build().model.output.out_features == 29
    assert (config.model.projector_size, config.model.lstm_size, config.model.num_lstm_layers) == (1024, 1024, 2)
    assert (config.model.dropout, config.optimizer.lr, config.dataloader.batch_size) == (0.2, 1e-4, 16)
    assert (trainer["max_steps"], trainer["val_check_interval"], augmentation.time_warp) == (200_000, 2000, 5)
    assert (augmentation.num_time_masks, augmentation.time_mask_width) == (2, 40)
    assert (augmentation.num_feature_masks, augmentation.feature_mask_width) == (4, 50)


def test_the_lstm_is_that_of_torch_on_each_utterance_alone():
    config = RecognizerConfig(projector_size=6, lstm_size=5, num_lstm_layers=2)
    head, peer = Recognizer(8, 4, config).eval(), torch.nn.LSTM(6, 5, 2, bidirectional=True)
    weights = {
        name.replace("_l0", f"_l{layer}"): value
        for layer, lstm in enumerate(head.lstm)
        for name, value in lstm.state_dict().items()
    }
    peer.load_state_dict(weights, strict=True)
    features, lengths = torch.randn(3, 9, 8), torch.tensor([4, 9, 1])
    logits = head(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        expected = head.output(peer(head.projector(features[row, :length]))[0])
        torch.testing.assert_close(logits[row, :length], expected)


def test_padding_does_not_change_loss_or_text():
    expert = build().eval()
    features, lengths, labels = torch.randn(2, 9, 8), torch.tensor([9, 5]), [[3, 4], [1, 5, 5]]
    spoiled = torch.cat([features, torch.full((2, 4, 8), 1e4)], 1)
    spoiled[1, 5:] = float("nan")
    both: list[dict[str, list]] = [{}, {}]
    losses = [
        expert("test", x, lengths, labels, into, ["a", "b"])
        for x, into in zip((features, spoiled), both, strict=True)
    ]
    assert losses[0].item() == losses[1].item() and both[0] == both[1]
    alone: dict[str, list] = {}
    expert("test", features[1:, :5], lengths[1:], labels[1:], alone, ["b"])
    assert alone["loss"][0] == pytest.approx(both[0]["loss"][1], rel=1e-5)
    losses[1].backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in expert.parameters())


def test_augmentation_masks_within_the_length_and_leaves_its_input():
    features, lengths = torch.ones(2, 60, 30), torch.tensor([60, 20])
    config = AugmentConfig(time_warp=0, time_mask_width=40, feature_mask_width=20)
    kept = features.clone()
    hidden = []
    for seed in range(60):
        torch.manual_seed(seed)
        changed = augment(features, lengths, config)
        assert set(changed.unique().tolist()) <= {0.0, 1.0} and (changed[1, 20:] == 1).all()
        for row, length in enumerate(lengths.tolist()):
            times, bins = changed[row, :length].amax(1) == 0, changed[row, :length].amax(0) == 0
            if not (times.all() or bins.all()):
                # what is masked is whole times and whole features
                assert ((changed[row, :length] == 0) == (times[:, None] | bins[None])).all()
                hidden.append((row, int(times.sum()), int(bins.sum())))
    torch.testing.assert_close(features, kept)
    assert max(times for row, times, _ in hidden if row == 0) > 30  # two masks of at most half of 60
    assert all(times <= 20 for row, times, _ in hidden if row == 1)
    assert max(bins for *_, bins in hidden) > 15


def test_time_is_warped_around_one_point_and_keeps_its_ends():
    ramp = torch.arange(50.0)[:, None].expand(50, 3)
    moves = []
    for seed in range(30):
        torch.manual_seed(seed)
        warped = warp_time(ramp, 5)
        assert warped.shape == ramp.shape and (warped[:, 0] == warped[:, 2]).all()
        steps = warped[1:, 0] - warped[:-1, 0]
        assert abs(float(warped[0, 0])) < 1 and abs(float(warped[-1, 0]) - 49) < 1 and (steps > 0).sum() >= 47
        moves.append(float((warped - ramp).abs().max()))
    assert 2 < max(moves) < 7  # at most 5 positions, and what cubic interpolation adds
    assert warp_time(ramp[:10], 5) is not None and torch.equal(warp_time(ramp[:10], 5), ramp[:10])


def test_augmentation_follows_from_the_seed_and_is_of_training_alone():
    expert = build()
    features, lengths = torch.randn(1, 40, 8), torch.tensor([40])
    losses = []
    for split, seed in (("train", 1), ("train", 1), ("train", 2), ("dev", 1), ("dev", 2)):
        expert.train(split == "train")
        torch.manual_seed(seed)
        losses.append(expert(split, features, lengths, [[1, 2]], {}, ["a"]).item())
    assert losses[0] == losses[1] != losses[2] and losses[3] == losses[4]


def test_words_are_joined_and_split_by_a_bar():
    expert = build()
    label = expert.encode_label("IT'S A")
    assert [CHARACTERS[index - 1] for index in label] == ["I", "T", "'", "S", "|", "A"]
    assert expert.decode_label(label) == "IT'S A"


@pytest.mark.parametrize(
    ("overrides", "searched"),
    [((), []), (("decoder.name=beam",), ["test", "inference"]),
     (("decoder.name=beam", "decoder.dev=true"), ["dev", "test", "inference"])],
)  # fmt: skip
def test_beam_search_is_for_test_and_inference_unless_dev_is_asked_for(overrides, searched, monkeypatch):
    calls: list[int] = []
    monkeypatch.setattr(asr, "BeamDecoder", lambda *_, **__: lambda log_probs, lengths: calls.append(1) or [])
    expert, asked = build(*overrides), []
    for split in ("dev", "test", "inference"):
        expert.decode(split, torch.zeros(1, 2, 29), torch.tensor([2]))
        asked += [split] if calls else []
        calls.clear()
    assert asked == searched


def test_a_language_model_without_the_beam_search_is_refused():
    with pytest.raises(UserError, match=r"decoder.lm: is for the beam search; add decoder.name=beam"):
        build("decoder.lm=x.arpa")


def test_rebuilt_expert_needs_no_data():
    expert = build()
    rebuilt = build("datarc.file_path=/gone", state=json.loads(json.dumps(expert.state())))
    rebuilt.load_state_dict(expert.state_dict(), strict=True)
    features, lengths = torch.randn(2, 5, 8), torch.tensor([5, 3])
    assert rebuilt.eval().predict(features, lengths) == expert.eval().predict(features, lengths)


@pytest.fixture
def tones(tmp_path):
    """A table of tones, one a character."""
    draw, rows = np.random.default_rng(0), []
    for number in range(16):
        text = "".join(draw.choice(["A", "B"], 3))
        hertz = np.repeat([{"A": 400, "B": 1600}[each] for each in text], 1600)
        wav = 0.3 * np.sin(2 * np.pi * np.cumsum(hertz) / 16000) + draw.normal(0, 0.01, len(hertz))
        soundfile.write(tmp_path / f"{number}.wav", wav, 16000)
        rows.append(f"{number}.wav,{text},{'train' if number < 10 else 'dev' if number < 13 else 'test'}")
    (tmp_path / "tones.csv").write_text("\n".join(["path,text,split", *rows]))
    return tmp_path / "tones.csv"


def test_a_resumed_run_ends_in_the_weights_of_an_uninterrupted_one(tones, tmp_path):
    """Dropout, time warping and masks included."""
    values = [f"datarc.file_path={tones}", *TINY, "dataloader.batch_size=4", "dataloader.num_workers=0"]
    values += ["trainer.val_check_interval=2", "trainer.enable_progress_bar=false", "optimizer.lr=1e-2"]

    def run(name: str, steps: int, **options):
        given = [*values, f"trainer.max_steps={steps}"] if "resume" not in options else [f"trainer.max_steps={steps}"]
        train(TaskOptions(root=tmp_path, name=name, overrides=given, device="cpu", **options))
        return torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    new = {"upstream": "fbank", "downstream": "asr_ctc"}
    whole = run("whole", 4, **new)
    first = run("halves", 2, **new)
    resumed = run("halves", 4, resume=str(tmp_path / "halves"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any(not torch.equal(first[key], resumed[key]) for key in whole)
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert {"wer", "cer", "substitutions", "insertions", "deletions", "loss"} <= set(metrics["test"])
    report = {path.name for path in (tmp_path / "whole" / "test").iterdir()}
    assert {"transcripts.csv", "errors.png"} <= report
