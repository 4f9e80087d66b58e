"""Another objective than reconstruction, in a plugin outside: is the loudness of a masked position below or above the
corpus' median? And other front ends than the log spectrogram."""

import json
import sys
from pathlib import Path

import pytest
import torch
import torchaudio
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mynah.commands import pretrain as run_pretrain
from mynah.utility.acoustic.config import AcousticConfig
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.configuration.load import from_plain
from mynah.utility.errors import UserError
from mynah.utility.nn.padding import pad_signals

EXPERT = '''
"""Masked loudness."""

from functools import partial
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from mynah.upstream.acoustic import load_acoustic_upstream
from mynah.utility.acoustic.config import AcousticPretrainConfig
from mynah.utility.acoustic.features import FeatureConfig
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.acoustic.objective import Objective
from mynah.utility.acoustic.objectives import OBJECTIVES
from mynah.utility.configuration.sections import Section, sections_of


class LoudnessConfig(Section):
    num_utterances: int = Field(4, gt=0)


class Loudness(Objective):
    Config = LoudnessConfig
    METRICS = ("accuracy",)
    mel = FeatureConfig(cmvn=False)

    def __init__(self, config, encoder, features):
        super().__init__(config, encoder, features)
        self.output = nn.Linear(encoder.hidden_size, 1)
        self.register_buffer("median", torch.zeros(()))

    def fit(self, features, waveforms):
        values = []
        for wav in islice(waveforms, self.config.num_utterances):
            heard = features(wav[None], torch.tensor([len(wav)]))
            values.append(features.stacked(heard, self.mel).mean((2, 3)).flatten())
        self.median.copy_(torch.cat(values).median())

    def targets(self, features, heard, chosen):
        return features.at(heard, self.mel, chosen).mean(1) > self.median

    def forward(self, hidden):
        return self.output(hidden)[:, 0]

    def loss(self, predictions, targets, num_masked):
        total = F.binary_cross_entropy_with_logits(predictions.float(), targets.float(), reduction="sum")
        return total / num_masked.clamp(min=1)

    def metrics(self, predictions, targets):
        return {"accuracy": (predictions > 0) == targets}

    def panels(self, features, heard, hidden):
        return {"loudness": self(hidden).sigmoid()[:, None]}


class ObjectiveConfig(sections_of({**OBJECTIVES, "loudness": Loudness})):
    name: str = "loudness"


class PretrainConfig(AcousticPretrainConfig):
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)


def build_pretraining(config, experiment):
    from mynah.utility.acoustic.pretraining import AcousticPretraining

    module = AcousticPretraining("loud", AcousticModel(config), config, experiment)
    return module


def load(ckpt=None, **options):
    raise NotImplementedError
'''


@pytest.fixture
def pretrain(monkeypatch, tmp_path, tiny_pretraining):
    """pretrain(*arguments) runs a tiny pretraining in this process, below tmp_path."""

    def run(*arguments, overrides=()):
        command = ["run_pretrain.py", "-p", str(tmp_path), *arguments, "-o", *tiny_pretraining, *overrides]
        monkeypatch.setattr(sys, "argv", command)
        return run_pretrain.run(run_pretrain.parse_arguments())

    return run


@pytest.fixture
def plugins(tmp_path) -> Path:
    folder = tmp_path / "plugins" / "upstream" / "loud"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""Loudness."""\n')
    (folder / "expert.py").write_text(EXPERT)
    (folder / "pretrain_config.yaml").write_text("trainer: {max_steps: 6}\n")
    (folder / "hubconf.py").write_text("from .expert import load as loud\n")
    return tmp_path / "plugins"


def test_an_objective_from_outside_is_fitted_trained_drawn_and_resumed(pretrain, plugins, tmp_path):
    steps = ["trainer.val_check_interval=2", "logging.pictures_every_n_steps=2"]
    at = ["-u", "loud", "--plugin-path", str(plugins)]
    assert pretrain("-n", "whole", *at, overrides=[*steps, "trainer.max_steps=6"]) == 0
    folder = tmp_path / "whole"
    assert (folder / "loudness.png").is_file()
    scalars = EventAccumulator(str(folder / "tensorboard")).Reload()
    accuracies = [event.value for event in scalars.Scalars("val_accuracy")]
    assert all(0 <= value <= 1 for value in accuracies) and len(accuracies) >= 3
    whole = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert whole["state_dict"]["model.objective.median"] != 0
    assert whole["mynah"]["config"]["objective"]["name"] == "loudness"

    assert pretrain("-n", "legs", *at, overrides=[*steps, "trainer.max_steps=2"]) == 0
    ends = ["--plugin-path", str(plugins), "-o", "trainer.max_steps=6"]
    sys.argv = ["run_pretrain.py", "-p", str(tmp_path), "-e", str(tmp_path / "legs"), *ends]
    assert run_pretrain.run(run_pretrain.parse_arguments()) == 0
    legs = torch.load(tmp_path / "legs" / "checkpoints" / "last.ckpt", weights_only=True)
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, legs["state_dict"][name]), name


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "unnamed",
            ("class PretrainConfig(AcousticPretrainConfig)", "class Other(AcousticPretrainConfig)"),
            "no class PretrainC",
        ),
        ("odd", ("return module", "return str(module)"), "build_pretraining returned str; expected a mynah"),
    ],
)
def test_an_expert_that_breaks_the_contract_of_pretraining_is_told(pretrain, plugins, name, change, message):
    (plugins / "upstream" / "loud").rename(plugins / "upstream" / name)
    expert = plugins / "upstream" / name / "expert.py"
    expert.write_text(expert.read_text().replace(*change))
    with pytest.raises(UserError, match=message):
        pretrain("-n", "x", "-u", name, "--plugin-path", str(plugins))


def test_kaldis_filter_banks_are_a_front_end(pretrain, tmp_path):
    fbank = ["features.front_end=fbank", "features.input.feature=fbank", "features.fbank.num_mel_bins=40"]
    targets = "objective.reconstruction.targets=[{feature: fbank}]"
    more = [*fbank, targets, "model.num_hidden_groups=1", "trainer.max_steps=2"]
    assert pretrain("-n", "run", "-u", "aalbert", overrides=more) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["val_loss"] > 0
    written = yaml.safe_load((tmp_path / "run" / "model_config.yaml").read_text())
    assert written["features"]["front_end"] == "fbank"


@pytest.mark.parametrize("cmvn", [True, False])
def test_the_model_sees_kaldis_filter_banks_frame_by_frame(cmvn):
    features = {"front_end": "fbank", "input": {"feature": "fbank", "num_deltas": 1, "cmvn": cmvn}}
    objective = {"reconstruction": {"targets": [{"feature": "fbank"}]}}
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 1}
    config = from_plain(AcousticConfig, {"model": sizes, "features": features, "objective": objective}, "test")
    model = AcousticModel(config).eval()
    signals = [
        0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples)) for samples in (5000, 3333)
    ]
    wavs, lengths = pad_signals(signals)
    heard = model.features(wavs, lengths)
    content = model.features.stacked(heard, config.features.input)
    for row, signal in enumerate(signals):
        fbank = torchaudio.compliance.kaldi.fbank(signal[None], num_mel_bins=80, sample_frequency=16000.0, dither=0.0)
        delta = torchaudio.functional.compute_deltas(fbank.T, win_length=5).T
        expected = torch.cat([fbank, delta], dim=1)
        if cmvn:
            expected = (expected - expected.mean(0)) / expected.std(0)
        count = len(expected) // 3
        assert model.positions.count(len(signal)) == count
        torch.testing.assert_close(content[row, :count].flatten(0, 1), expected[: 3 * count], atol=2e-3, rtol=1e-3)
    assert model.positions.count(model.positions.min_samples) == 1
    assert model.positions.count(model.positions.min_samples - 1) == 0


def test_a_target_that_the_front_end_does_not_give_is_told():
    with pytest.raises(
        UserError, match=r"objective.reconstruction.targets\[0\].feature: the front end fbank gives fb"
    ):
        from_plain(AcousticConfig, {"features": {"front_end": "fbank", "input": {"feature": "fbank"}}}, "test")
