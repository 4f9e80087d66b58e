"""The acoustic model without its objective: waveforms -> features -> positions -> encoder -> hidden states."""

from collections.abc import Container
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.acoustic.features import AcousticFeaturesConfig, StackedFeatures
from mynah.utility.acoustic.masking import MaskPlan
from mynah.utility.configuration.sections import Section
from mynah.utility.nn.encoder import EncoderConfig, TransformerEncoder, initialize_weights, sinusoid_positions
from mynah.utility.nn.padding import equal_parts, lengths_to_mask, regroup


class AcousticEncoderConfig(EncoderConfig):
    """The encoder and how frames enter it."""

    frames_per_position: int = Field(3, ge=1)
    """Consecutive frames stacked into one position."""
    mask_token: bool = True
    """Whether a learned vector is added to zeroed positions."""
    max_positions: int | None = Field(None, ge=1)
    """Longer inputs are cut into the fewest equal parts that are not longer; each is encoded by itself, its positions
    counted from 0, as s3prl does. None: whole, however long."""
    ignore_blank_positions: bool = False
    """s3prl's mask of attention: where k positions of a part have input that sums to 0, its last k are not attended
    to."""


OBJECTIVE = "objective."
"""Before the names of the objective's weights."""
STATISTICS = "features.statistics."
"""Before the names of what the corpus says of features, of the input and of targets."""


class TrunkConfig(Section):
    """What hidden states depend on."""

    model: AcousticEncoderConfig = Field(default_factory=AcousticEncoderConfig)
    features: AcousticFeaturesConfig = Field(default_factory=AcousticFeaturesConfig)


def trunk_sections(config: dict[str, Any]) -> dict[str, Any] | None:
    """Of the plain configuration of a checkpoint what TrunkConfig has; None where it is of no acoustic model."""
    sections = {name: config[name] for name in TrunkConfig.model_fields if name in config}
    return sections if len(sections) == len(TrunkConfig.model_fields) else None


def without_objective(weights: dict[str, Tensor], wanted: Container[str]) -> dict[str, Tensor]:
    """The weights of an acoustic model but for its objective's own, and for the corpus' statistics of its targets.

    wanted: names, those of the statistics that are kept among them.
    """
    kept = {name: value for name, value in weights.items() if not name.startswith(OBJECTIVE)}
    return {name: value for name, value in kept.items() if name in wanted or not name.startswith(STATISTICS)}


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
        parts = self._cut(positions, x.shape[1])
        attended = self._attended(content, positions, parts)
        if parts is not None:
            x = regroup(x, positions, parts)
        x = x + sinusoid_positions(x.shape[1], x.shape[2], x.device).to(dtype)
        x = self.input_dropout(self.input_norm(x))
        valid = lengths_to_mask(attended, x.shape[1])
        whole = self._is_whole(plan, parts, valid)
        states, attentions = self.encoder(x, None if whole else valid, return_attentions, num_layers=num_layers)
        if parts is not None:
            states = tuple(regroup(state, parts, positions) for state in states)
            attentions = tuple(_block_diagonal(each, parts, positions) for each in attentions)
        return states, positions, attentions

    def _cut(self, positions: Tensor, longest: int) -> Tensor | None:
        """The lengths of the parts that are encoded by themselves, row after row; None where nothing is cut."""
        limit = self.config.model.max_positions
        if limit is None:
            return None
        if torch.compiler.is_exporting():  # how many parts there are depends on the data
            torch._check(longest <= limit, lambda: f"the graph takes at most {limit} positions")
            return None
        return None if longest <= limit else equal_parts(positions, limit)

    def _is_whole(self, plan: MaskPlan | None, parts: Tensor | None, valid: Tensor) -> bool:
        """Whether every position is attended to; a GPU is asked, and waited for, only where the plan does not say."""
        if torch.compiler.is_exporting():  # a graph cannot ask its data
            return False
        if plan is None or plan.whole is None or parts is not None or self.config.model.ignore_blank_positions:
            return bool(valid.all())
        return plan.whole

    def _attended(self, content: Tensor, positions: Tensor, parts: Tensor | None) -> Tensor:
        """How many positions of each input, or part of one, may be attended to, from its first: (B,) or (P,).

        s3prl counts those whose input sums to anything but 0, and adds -10000 to the scores of all beyond that count,
        which takes them out: exp(-10000) is 0. Where each is blank it does so to all, which a softmax does not see.
        """
        lengths = positions if parts is None else parts
        if not self.config.model.ignore_blank_positions:
            return lengths
        told = content.flatten(2).sum(-1, keepdim=True) != 0
        if parts is not None:
            told = regroup(told, positions, parts)
        count = (told[:, :, 0] & lengths_to_mask(lengths, told.shape[1])).sum(-1)
        return torch.where(count > 0, count, lengths)


def _block_diagonal(maps: Tensor, parts: Tensor, positions: Tensor) -> Tensor:
    """maps: (P, heads, M, M) of parts: (P,) -> (B, heads, N, N), zero between parts."""
    longest = int(positions.max())
    whole = maps.new_zeros(len(positions), maps.shape[1], longest, longest)
    lengths, row, start = positions.tolist(), 0, 0
    for each, size in zip(maps, parts.tolist(), strict=True):
        if start == lengths[row]:
            row, start = row + 1, 0
        end = start + size
        whole[row, :, start:end, start:end] = each[:, :size, :size]
        start = end
    return whole
