"""Masked reconstruction, the objective of Audio ALBERT and Mockingjay: the frames of masked positions, by L1."""

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.acoustic.features import AcousticFeaturesConfig, FeatureConfig, Heard, StackedFeatures
from mynah.utility.acoustic.objective import Objective
from mynah.utility.configuration.sections import Section, rules
from mynah.utility.nn.encoder import ACTIVATIONS, EncoderConfig


class ReconstructionConfig(Section):
    """Which features are reconstructed."""

    targets: list[FeatureConfig] = Field(default_factory=lambda: [FeatureConfig(feature="linear")])
    """Each a feature that the front end gives, with a prediction head of its own."""

    @rules
    def _targets_differ(self) -> Iterable[str | None]:
        if not self.targets:
            yield "targets: at least one is needed"
        names = [target.feature for target in self.targets]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"targets: {name} is given twice"


class Reconstruction(Objective):
    """Predictions and targets are {feature: (M, S * bins)}."""

    Config = ReconstructionConfig

    def __init__(self, config: ReconstructionConfig, encoder: EncoderConfig, features: StackedFeatures):
        super().__init__(config, encoder, features)
        features.declare(*config.targets)
        self.frames_per_position = features.positions.frames_per_position
        self.heads = nn.ModuleDict(
            {target.feature: PredictionHead(encoder, features.size(target)) for target in config.targets}
        )

    @classmethod
    def misfits(cls, config: ReconstructionConfig, features: AcousticFeaturesConfig) -> Iterable[str | None]:
        for index, target in enumerate(config.targets):
            yield features.refusal(f"targets[{index}].feature", target.feature)

    def targets(self, features: StackedFeatures, heard: Heard, chosen: Tensor) -> dict[str, Tensor]:
        return {one.feature: features.at(heard, one, chosen) for one in self.config.targets}

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        return {feature: head(hidden) for feature, head in self.heads.items()}

    def loss(self, predictions: dict[str, Tensor], targets: dict[str, Tensor], num_masked: Tensor) -> Tensor:
        """L1 over masked positions: summed over bins, divided by masked positions and by the stacking, averaged over
        targets (Chi et al. 2021, sec. 3.1, as the official code normalizes it)."""
        losses = [(predictions[name].float() - truth).abs().sum() for name, truth in targets.items()]
        return torch.stack(losses).mean() / (num_masked.clamp(min=1) * self.frames_per_position)

    def panels(self, features: StackedFeatures, heard: Heard, hidden: Tensor) -> dict[str, Tensor]:
        panels = {}
        for target in self.config.targets:
            truth = features.stacked(heard, target)
            panels[f"reconstruction ({target.feature})"] = self.heads[target.feature](hidden).view_as(truth[0])
            panels[f"target ({target.feature})"] = truth[0]
        return {title: panel.flatten(0, 1) for title, panel in panels.items()}


class PredictionHead(nn.Module):
    """Hidden states -> frames: projection, activation, LayerNorm, linear (BERT's MLM head in shape)."""

    def __init__(self, config: EncoderConfig, output_size: int):
        super().__init__()
        self.projection = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.output = nn.Linear(config.hidden_size, output_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (M, D) -> (M, output_size)."""
        return self.output(self.norm(self.activation(self.projection(hidden))))
