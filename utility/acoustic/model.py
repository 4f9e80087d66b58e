"""The masked acoustic model: spectrogram frames -> positions -> encoder -> reconstructed spectrograms.

Audio ALBERT and Mockingjay are this model with different values in their `pretrain_config.yaml`.
"""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.acoustic.masking import MaskPlan
from mynah.utility.audio.spectrogram import (
    CMVN_FLOOR,
    Spectrogram,
    SpectrogramConfig,
    add_deltas,
    utterance_cmvn,
    utterance_statistics,
)
from mynah.utility.configuration.sections import Section, one_of, rules
from mynah.utility.nn.encoder import (
    ACTIVATIONS,
    EncoderConfig,
    TransformerEncoder,
    initialize_weights,
    sinusoid_positions,
)
from mynah.utility.nn.padding import lengths_to_mask, zero_padding

FEATURES = ("mel", "linear")


class AcousticEncoderConfig(EncoderConfig):
    """The encoder and how frames enter it."""

    frames_per_position: int = Field(3, ge=1)
    """Consecutive frames stacked into one position."""
    mask_token: bool = True
    """Whether a learned vector is added to zeroed positions."""


class FeatureConfig(Section):
    """One kind of spectrogram, as input or as target."""

    feature: Annotated[str, one_of(FEATURES)] = "mel"
    """mel or linear, both as natural logarithms of power."""
    num_deltas: int = Field(0, ge=0, le=2)
    """Orders of derivatives appended to the features."""
    cmvn: bool = True
    """Mean and variance normalization per utterance."""


class AcousticFeaturesConfig(Section):
    """The spectrograms: one short-time Fourier transform serves the input and every target."""

    spectrogram: SpectrogramConfig = Field(default_factory=SpectrogramConfig)
    input: FeatureConfig = Field(default_factory=FeatureConfig)
    targets: list[FeatureConfig] = Field(default_factory=lambda: [FeatureConfig(feature="linear")])

    @rules
    def _targets_differ(self) -> Iterable[str | None]:
        if not self.targets:
            yield "targets: at least one is needed"
        names = [target.feature for target in self.targets]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"targets: {name} is given twice"


class AcousticModel(nn.Module):
    """Waveforms -> hidden states; with a mask plan, waveforms -> reconstructions of what was masked."""

    def __init__(self, config: AcousticEncoderConfig, features: AcousticFeaturesConfig):
        super().__init__()
        self.config, self.features = config, features
        self.spectrogram = Spectrogram(features.spectrogram)
        self.frames_per_position = config.frames_per_position
        self.num_input_bins = self.num_bins(features.input)
        self.input_projection = nn.Linear(self.num_input_bins * config.frames_per_position, config.hidden_size)
        self.input_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.input_dropout = nn.Dropout(config.hidden_dropout_prob)
        self.mask_token = nn.Parameter(torch.zeros(config.hidden_size)) if config.mask_token else None
        self.encoder = TransformerEncoder(config)
        self.heads = nn.ModuleDict(
            {
                target.feature: PredictionHead(config, self.num_bins(target) * config.frames_per_position)
                for target in features.targets
            }
        )
        self.apply(lambda module: initialize_weights(module, config.initializer_range))

    @property
    def samples_per_position(self) -> int:
        return self.frames_per_position * self.spectrogram.hop

    @property
    def min_samples(self) -> int:
        """The shortest waveform that fills one position."""
        return max(self.spectrogram.min_samples, (self.frames_per_position - 1) * self.spectrogram.hop)

    def num_bins(self, feature: FeatureConfig) -> int:
        bins = self.spectrogram.num_mels if feature.feature == "mel" else self.spectrogram.num_bins
        return bins * (feature.num_deltas + 1)

    def num_positions(self, samples: Tensor | int) -> Tensor | int:
        """Positions of a waveform of that many samples; frames that do not fill one are left out."""
        return self.spectrogram.num_frames(samples) // self.frames_per_position

    def forward(
        self, wavs: Tensor, lengths: Tensor, return_attentions: bool = False
    ) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]:
        """wavs: (B, T) float32 at 16 kHz, zeros beyond lengths: (B,) samples.

        Returns the hidden states H_0 (the embedded input) to H_L, each (B, N, D), the (B,) valid positions, and
        the attention maps if asked for.
        """
        power, frames = self.spectrogram(wavs, lengths)
        positions = self.num_positions(lengths)
        content = self.stacked_features(power, frames, self.features.input)
        return self.encode(content, positions, return_attentions=return_attentions)

    def encode(
        self, content: Tensor, positions: Tensor, plan: MaskPlan | None = None, return_attentions: bool = False
    ) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]:
        """content: (B, N, S, bins) stacked input frames; positions: (B,). Returns what `forward` returns."""
        shown = content if plan is None else plan.show(content)
        x = self.input_projection(shown.flatten(2))
        if plan is not None and self.mask_token is not None:
            x = x + plan.zeroed[:, :, None] * self.mask_token
        x = x + sinusoid_positions(x.shape[1], x.shape[2], x.device)
        x = self.input_dropout(self.input_norm(x))
        valid = lengths_to_mask(positions, x.shape[1])
        states, attentions = self.encoder(x, None if bool(valid.all()) else valid, return_attentions)
        return states, positions, attentions

    def reconstruct(self, wavs: Tensor, lengths: Tensor, plan: MaskPlan) -> dict[str, tuple[Tensor, Tensor]]:
        """Predict the positions that the plan asks for.

        wavs: (B, T) float32, lengths: (B,) samples, plan: of (B, N) positions.
        Returns {target: (prediction, truth)}, each (M, S * bins), for the M target positions of the batch in order;
        the heads see these positions only.
        """
        with torch.no_grad():
            power, frames = self.spectrogram(wavs, lengths)
            content = self.stacked_features(power, frames, self.features.input)
            truths = {
                target.feature: self._masked_truth(power, frames, target, plan) for target in self.features.targets
            }
            del power
        states, _, _ = self.encode(content, self.num_positions(lengths), plan)
        masked = states[-1][plan.target]
        return {name: (head(masked), truths[name]) for name, head in self.heads.items()}

    def stacked_features(self, power: Tensor, frames: Tensor, feature: FeatureConfig) -> Tensor:
        """power: (B, F, bins), frames: (B,) -> the configured features (B, N, S, bins), padded frames zero."""
        x = self._log_features(power, frames, feature)
        return self._stack(utterance_cmvn(x, frames) if feature.cmvn else zero_padding(x, frames))

    def _masked_truth(self, power: Tensor, frames: Tensor, feature: FeatureConfig, plan: MaskPlan) -> Tensor:
        """The target features at the plan's target positions: (M, S * bins); the rest is never normalized."""
        x = self._log_features(power, frames, feature)
        truth = self._stack(x)[plan.target]
        if feature.cmvn:
            mean, deviation = utterance_statistics(x, frames)
            row = plan.target.nonzero()[:, 0]
            truth = truth.sub_(mean[row]).div_(deviation[row] + CMVN_FLOOR)
        return truth.flatten(1)

    def _log_features(self, power: Tensor, frames: Tensor, feature: FeatureConfig) -> Tensor:
        logarithm = self.spectrogram.log_mel if feature.feature == "mel" else self.spectrogram.log_linear
        return add_deltas(logarithm(power), frames, feature.num_deltas)

    def _stack(self, x: Tensor) -> Tensor:
        """(B, F, bins) frames -> (B, N, S, bins) positions of S frames; frames that do not fill one are dropped."""
        num_positions = x.shape[1] // self.frames_per_position
        used = x[:, : num_positions * self.frames_per_position]
        return used.unflatten(1, (num_positions, self.frames_per_position))


class PredictionHead(nn.Module):
    """Hidden states -> spectrogram frames: projection, activation, LayerNorm, linear (BERT's MLM head in shape)."""

    def __init__(self, config: EncoderConfig, output_size: int):
        super().__init__()
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.output = nn.Linear(config.hidden_size, output_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (M, D) -> (M, output_size)."""
        return self.output(self.norm(self.activation(self.projection(hidden))))


def reconstruction_loss(
    outputs: dict[str, tuple[Tensor, Tensor]], frames_per_position: int, num_masked: Tensor
) -> Tensor:
    """L1 over masked positions: summed over bins, divided by masked positions and by the stacking, averaged over
    targets (Chi et al. 2021, sec. 3.1, as the official code normalizes it).

    num_masked: () the number of masked positions to divide by; the batch's own, or the mean over processes.
    """
    losses = [(prediction.float() - truth).abs().sum() for prediction, truth in outputs.values()]
    return torch.stack(losses).mean() / (num_masked.clamp(min=1) * frames_per_position)
