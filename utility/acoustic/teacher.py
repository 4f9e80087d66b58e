"""The teacher of a second stage: an earlier model whose hidden states are clustered.

Its weights are part of the checkpoints of the run that it teaches, so that this can be resumed without the earlier
one; a model that only gives features does without.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.acoustic.features import Positions
from mynah.utility.acoustic.trunk import AcousticTrunk, TrunkConfig, trunk_sections, without_objective
from mynah.utility.configuration.load import from_plain
from mynah.utility.configuration.sections import rules
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, locate_checkpoint, read_checkpoint, select_weights
from mynah.utility.experiments.shipped import describe_source

log = logging.getLogger("mynah")


class TeacherConfig(TrunkConfig):
    """An earlier model and the hidden state of it."""

    layer: int = Field(ge=0)
    """0 is the embedded input."""

    @rules
    def _layer_exists(self) -> Iterable[str | None]:
        if self.layer > self.model.num_hidden_layers:
            yield f"layer: the earlier model has hidden states 0 to {self.model.num_hidden_layers}, got {self.layer}"


class Teacher(nn.Module):
    """Waveforms -> one hidden state of the earlier model, which never learns."""

    def __init__(self, config: TeacherConfig):
        super().__init__()
        self.config = config
        self.trunk = AcousticTrunk(config).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Teacher":
        return super().train(False)

    @torch.no_grad()
    def forward(self, wavs: Tensor, lengths: Tensor) -> Tensor:
        """wavs: (B, T) float32, lengths: (B,) samples -> (B, N, D), nothing of it masked."""
        states, _, _ = self.trunk(wavs, lengths, num_layers=self.config.layer)
        return states[self.config.layer]

    def check_positions(self, positions: Positions) -> None:
        """Raise UserError where its positions lie elsewhere in time than these, those of its student."""
        own = self.trunk.positions
        if own != positions:
            raise UserError(
                f"init.clusters: the earlier model has a position every {own.samples_per_position} samples, this one "
                f"every {positions.samples_per_position}, or their frames lie elsewhere; give the same front end, "
                "hop_ms and model.frames_per_position"
            )


def read_teacher(clusters: str, upstream: str) -> tuple[TeacherConfig, dict[str, Tensor]]:
    """The configuration and weights of the model that `init.clusters`, CKPT:LAYER, names.

    upstream: the student's, for the names of weights that come with Mynah.
    Raises UserError where the checkpoint is of no acoustic model, or has no such layer.
    """
    source, _, layer = clusters.rpartition(":")
    checkpoint = read_checkpoint(locate_checkpoint(source, upstream), "pretrain")
    metadata = checkpoint[METADATA]
    sections = trunk_sections(metadata["config"])
    if sections is None:
        raise UserError(
            f"init.clusters: {source} holds upstream '{metadata['upstream']}'; expected an acoustic model"
        )
    config = from_plain(TeacherConfig, {**sections, "layer": int(layer)}, f"init.clusters={clusters}")
    weights = select_weights(checkpoint["state_dict"], "model.")
    where = describe_source(source, upstream)
    log.info("clusters of hidden state %s of %s (%s, step %d)", layer, where, metadata["upstream"], metadata["step"])
    return config, without_objective(weights, AcousticTrunk(config).state_dict())


def restore_teacher(config: Any, metadata: dict[str, Any], source: Path) -> None:
    """Settle the teacher of a resumed run's `config` as the checkpoint `source` has it.

    config: an AcousticPretrainConfig. Raises UserError where its `init.clusters` is another than the run's own.
    """
    own = metadata["pretrain_config"].get("init", {}).get("clusters", "")
    if config.init.clusters != own:
        raise UserError(
            f"init.clusters={config.init.clusters!r}: {source} was trained with {own!r}; leave it as it was, or "
            "start a new run"
        )
    if own:
        plain = metadata["config"]["objective"]["clusters"]["teacher"]
        config.objective.clusters.teacher = from_plain(TeacherConfig, plain, str(source))
