"""The acoustic model without its objective: waveforms -> features -> positions -> encoder -> hidden states."""

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.acoustic.features import AcousticFeaturesConfig, StackedFeatures
from mynah.utility.acoustic.masking import MaskPlan
from mynah.utility.configuration.sections import Section
from mynah.utility.nn.encoder import EncoderConfig, TransformerEncoder, initialize_weights, sinusoid_positions
from mynah.utility.nn.padding import lengths_to_mask


class AcousticEncoderConfig(EncoderConfig):
    """The encoder and how frames enter it."""

    frames_per_position: int = Field(3, ge=1)
    """Consecutive frames stacked into one position."""
    mask_token: bool = True
    """Whether a learned vector is added to zeroed positions."""


class TrunkConfig(Section):
    """What hidden states depend on."""

    model: AcousticEncoderConfig = Field(default_factory=AcousticEncoderConfig)
    features: AcousticFeaturesConfig = Field(default_factory=AcousticFeaturesConfig)


class AcousticTrunk(nn.Module):
    """Waveforms -> hidden states, of content that a mask plan may hide in part."""

    def __init__(self, config: TrunkConfig):
        super().__init__()
        self.config = config
        shape = config.model
        self.features = StackedFeatures(config.features, shape.frames_per_position)
        self.features.declare(config.features.input)
        self.positions = self.features.positions
        self.num_input_bins = self.features.num_bins(config.features.input)
        self.input_projection = nn.Linear(self.features.size(config.features.input), shape.hidden_size)
        self.input_norm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.input_dropout = nn.Dropout(shape.hidden_dropout_prob)
        self.mask_token = nn.Parameter(torch.zeros(shape.hidden_size)) if shape.mask_token else None
        self.encoder = TransformerEncoder(shape)
        self.apply(lambda module: initialize_weights(module, shape.initializer_range))

    def forward(
        self, wavs: Tensor, lengths: Tensor, return_attentions: bool = False, num_layers: int | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]:
        """wavs: (B, T) float32 at 16 kHz, zeros beyond lengths: (B,) samples.

        Returns the hidden states H_0 (the embedded input) to H_L, each (B, N, D), the (B,) valid positions, and
        the attention maps if asked for. num_layers: pass the first ones only.
        """
        content = self.features.stacked(self.features(wavs, lengths), self.config.features.input)
        positions = self.positions.count(lengths)
        return self.encode(content, positions, return_attentions=return_attentions, num_layers=num_layers)

    def encode(
        self,
        content: Tensor,
        positions: Tensor,
        plan: MaskPlan | None = None,
        return_attentions: bool = False,
        num_layers: int | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor, tuple[Tensor, ...]]:
        """content: (B, N, S, bins) stacked input frames; positions: (B,). Returns what `forward` returns."""
        shown = content if plan is None else plan.show(content)
        dtype = self.input_projection.weight.dtype
        x = self.input_projection(shown.flatten(2).to(dtype))
        if plan is not None and self.mask_token is not None:
            x = x + plan.zeroed[:, :, None] * self.mask_token
        x = x + sinusoid_positions(x.shape[1], x.shape[2], x.device).to(dtype)
        x = self.input_dropout(self.input_norm(x))
        valid = lengths_to_mask(positions, x.shape[1])
        whole = not torch.compiler.is_exporting() and bool(valid.all())  # a graph cannot ask its data
        states, attentions = self.encoder(x, None if whole else valid, return_attentions, num_layers=num_layers)
        return states, positions, attentions
