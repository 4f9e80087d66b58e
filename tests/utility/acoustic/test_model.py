"""The masked acoustic model and its loss, against loops over utterances, positions and bins on torchaudio's
spectrograms."""

import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor

from mynah import ROOT
from mynah.utility.acoustic.config import AcousticConfig, AcousticPretrainConfig
from mynah.utility.acoustic.features import FeatureConfig
from mynah.utility.acoustic.masking import MaskingConfig, MaskPlan, batch_mask_plans, draw_mask_plan
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.acoustic.reconstruction import ReconstructionConfig
from mynah.utility.acoustic.trunk import AcousticEncoderConfig
from mynah.utility.configuration.load import load_config
from mynah.utility.configuration.problems import validate
from mynah.utility.nn.encoder import sinusoid_positions
from mynah.utility.nn.padding import pad_signals

TINY = ["num_hidden_layers=2", "hidden_size=16", "num_attention_heads=2", "intermediate_size=24"]
STACKING = {"aalbert": 3, "mockingjay": 2}
REFERENCES = {
    "linear": torchaudio.transforms.Spectrogram(2046, 400, 160, power=2),
    "mel": torchaudio.transforms.MelSpectrogram(16000, 2046, 400, 160, n_mels=80),
}


def voice(samples: int, seed: int) -> Tensor:
    """Noise whose loudness and color change: (samples,)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, generator=generator)
    time = torch.arange(samples) / 16000
    return 0.1 * (noise + 0.5 * noise.roll(1)) * (1.2 + torch.sin((5 + seed) * time))


@pytest.fixture(scope="module")
def signals() -> list[Tensor]:
    return [voice(samples, seed) for seed, samples in enumerate([9000, 4321, 6000])]


def tiny_model(recipe: str) -> AcousticModel:
    """The recipe of the plugin's YAML with a tiny encoder whose weights are not near zero."""
    file = ROOT / "upstream" / recipe / "pretrain_config.yaml"
    options = [*TINY, "initializer_range=0.2", f"num_hidden_groups={1 if recipe == 'aalbert' else 2}"]
    config = load_config(AcousticPretrainConfig, files=[file], overrides=[f"model.{option}" for option in options])
    torch.manual_seed(0)
    model = AcousticModel(config).eval()
    if model.mask_token is not None:
        torch.nn.init.normal_(model.mask_token)
    return model


def draw_plan(model: AcousticModel, signals: list[Tensor], **fields) -> MaskPlan:
    config = MaskingConfig().model_copy(update={"mask_proportion": 0.3, **fields})  # also what it refuses
    return batch_mask_plans(
        [
            draw_mask_plan(
                model.positions.count(len(signal)), model.num_input_bins, config, np.random.default_rng(seed)
            )
            for seed, signal in enumerate(signals)
        ]
    )


def normalized_spectrogram(signal: Tensor, feature: str, num_deltas: int) -> Tensor:
    """(F, D) float32 by torchaudio, with CMVN by numpy in double precision."""
    parts = [(REFERENCES[feature](signal) + 1e-10).log()]
    for _ in range(num_deltas):
        parts.append(torchaudio.functional.compute_deltas(parts[-1], win_length=5))
    values = torch.cat(parts).T.double().numpy()
    return torch.from_numpy((values - values.mean(0)) / (values.std(0, ddof=1) + 1e-10)).float()


def predictions_alone(model: AcousticModel, recipe: str, signal: Tensor, masked: Tensor) -> dict[str, Tensor]:
    """Every position's prediction for one utterance by itself, its input made here: {target: (N, S * bins)}."""
    frames = normalized_spectrogram(signal, "mel", 1 if recipe == "aalbert" else 0)
    stacking, count = STACKING[recipe], len(masked)
    x = torch.stack([frames[stacking * position : stacking * (position + 1)].flatten() for position in range(count)])
    x[masked] = 0
    x = model.input_projection(x)
    if recipe == "aalbert":
        x[masked] += model.mask_token
    states, _ = model.encoder(model.input_norm(x + sinusoid_positions(count, 16))[None])
    return {name: head(states[-1][0]) for name, head in model.objective.heads.items()}


def loss_by_loops(model: AcousticModel, recipe: str, signals: list[Tensor], plan: MaskPlan) -> float:
    """L1 over masked positions only: summed over bins, divided by masked positions and by the stacking, averaged
    over targets."""
    stacking, losses = STACKING[recipe], []
    for target in {"aalbert": ["linear"], "mockingjay": ["mel", "linear"]}[recipe]:
        total, num_masked = 0.0, 0
        for row, signal in enumerate(signals):
            truth = normalized_spectrogram(signal, target, 0).tolist()
            masked = plan.target[row, : (1 + len(signal) // 160) // stacking]
            predicted = predictions_alone(model, recipe, signal, masked)[target].tolist()
            num_bins = len(truth[0])
            for position in masked.nonzero()[:, 0].tolist():
                num_masked += 1
                for frame in range(stacking):
                    for one_bin in range(num_bins):
                        guess = predicted[position][frame * num_bins + one_bin]
                        total += abs(guess - truth[position * stacking + frame][one_bin])
        losses.append(total / num_masked / stacking)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("recipe", STACKING)
def test_loss_equals_loops_over_utterances_positions_and_bins(signals, recipe):
    model = tiny_model(recipe)
    plan = draw_plan(model, signals)
    with torch.no_grad():
        actual = model.loss(*pad_signals(signals), plan)
        expected = loss_by_loops(model, recipe, signals, plan)
    assert actual.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("recipe", STACKING)
def test_heads_see_the_masked_positions_only(signals, recipe):
    model = tiny_model(recipe)
    plan = draw_plan(model, signals)
    predictions, truths = model.predict(*pad_signals(signals), plan)
    bins = {"aalbert": {"linear": 1024}, "mockingjay": {"mel": 80, "linear": 1024}}[recipe]
    assert list(predictions) == list(truths) == list(bins)
    for name, truth in truths.items():
        prediction = predictions[name]
        assert prediction.shape == truth.shape == (plan.target.sum(), STACKING[recipe] * bins[name])
        assert prediction.requires_grad
        assert not truth.requires_grad


def test_loss_of_shares_is_the_loss_of_the_whole(signals):
    """Each of two processes divides by the mean of both counts; the mean of their losses is that of one process."""
    model = tiny_model("mockingjay")
    plan = draw_plan(model, signals)
    counts = [plan.target[rows].sum().float() for rows in ([0, 1, 2], [0], [1, 2])]
    losses = []
    for rows, count in zip(([0, 1, 2], [0], [1, 2]), (counts[0], *[counts[0] / 2] * 2), strict=True):
        wavs, lengths = pad_signals([signals[row] for row in rows])
        share = batch_mask_plans([part_of(plan, row, model.positions.count(len(signals[row]))) for row in rows])
        losses.append(model.loss(wavs, lengths, share, count).item())
    assert counts[1] != counts[2]
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-5)


def part_of(plan: MaskPlan, row: int, count: int) -> MaskPlan:
    return MaskPlan(plan.target[row, :count], plan.source[row, :count], plan.band[row])


def test_nothing_masked_is_no_loss_rather_than_nan(signals):
    model = tiny_model("aalbert")
    plan = draw_plan(model, signals, mask_proportion=0.0)
    loss = model.loss(*pad_signals(signals), plan)
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("recipe", STACKING)
def test_what_is_masked_is_not_seen(signals, recipe):
    model = tiny_model(recipe)
    plan = draw_plan(model, signals)
    _, lengths = pad_signals(signals)
    content = torch.randn(*plan.target.shape, STACKING[recipe], model.num_input_bins)
    other = torch.where(plan.target[:, :, None, None], torch.randn_like(content), content)
    positions = model.positions.count(lengths)
    (hidden, _, _), (hidden_of_other, _, _) = (model.encode(x, positions, plan) for x in (content, other))
    for state, state_of_other in zip(hidden, hidden_of_other, strict=True):
        assert torch.equal(state, state_of_other)
    assert not torch.allclose(model.encode(content, positions)[0][-1], model.encode(other, positions)[0][-1])


def test_the_mask_token_is_added_to_zeroed_positions_alone(signals):
    model = tiny_model("aalbert")
    plan = draw_plan(model, signals[:1])
    content = torch.randn(*plan.target.shape, 3, 160)
    positions = torch.tensor([plan.target.shape[1]])
    before = model.encode(content, positions, plan)[0][0]
    model.mask_token.data += 1 + torch.arange(16.0)
    after = model.encode(content, positions, plan)[0][0]
    changed = (before - after).abs().amax(-1) > 1e-6
    assert torch.equal(changed, plan.target)


@pytest.mark.parametrize("recipe", STACKING)
def test_every_weight_that_pretraining_uses_receives_a_gradient(signals, recipe):
    model = tiny_model(recipe).train()
    plan = draw_plan(model, signals)
    model.loss(*pad_signals(signals), plan).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("recipe", STACKING)
def test_hidden_state_0_is_the_embedded_input_by_hand(signals, recipe):
    model = tiny_model(recipe)
    states, positions, attentions = model(*pad_signals(signals))
    assert len(states) == 3
    assert attentions == ()
    for row, signal in enumerate(signals):
        frames = normalized_spectrogram(signal, "mel", 1 if recipe == "aalbert" else 0)
        count = len(frames) // STACKING[recipe]
        assert positions[row] == count
        stacked = frames[: count * STACKING[recipe]].reshape(count, -1)
        embedded = model.input_projection(stacked) + sinusoid_positions(count, 16)
        expected = torch.nn.functional.layer_norm(embedded, (16,), eps=1e-12)
        torch.testing.assert_close(states[0][row, :count], expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("recipe", STACKING)
def test_the_shortest_waveform_gives_one_position(recipe):
    model = tiny_model(recipe)
    for samples, count in ((model.positions.min_samples, 1), (model.positions.samples_per_position * 5, 5)):
        states, positions, _ = model(*pad_signals([voice(samples, 1)]))
        assert positions.tolist() == [count]
        assert states[-1].shape == (1, count, 16)
        assert states[-1].isfinite().all()
    assert (
        model.positions.count(model.positions.min_samples - 1) == 0
        or model.positions.min_samples == model.features.front_end.framing.min_samples
    )


def test_attention_maps_are_distributions_over_valid_positions(signals):
    model = tiny_model("aalbert")
    states, positions, attentions = model(*pad_signals(signals), return_attentions=True)
    assert len(attentions) == 2
    for attention in attentions:
        assert attention.shape == (3, 2, states[0].shape[1], states[0].shape[1])
        for row, count in enumerate(positions):
            torch.testing.assert_close(attention[row, :, :, :count].sum(-1), torch.ones(2, states[0].shape[1]))


@pytest.mark.parametrize(
    ("schema", "values", "keys"),
    [
        (AcousticEncoderConfig, {"frames_per_position": 0}, ["frames_per_position"]),
        (FeatureConfig, {"feature": "mffc", "num_deltas": 3}, ["feature", "num_deltas"]),
        (ReconstructionConfig, {"targets": []}, ["targets"]),
        (ReconstructionConfig, {"targets": [{}, {}]}, ["targets"]),
        (AcousticConfig, {}, []),
        (AcousticConfig, {"features": {"front_end": "fbank"}}, ["features.input.feature"]),
    ],
)
def test_impossible_models_are_named(schema, values, keys):
    assert [key for key, _ in validate(schema, values)[1]] == keys
