"""Baseline upstreams: filter banks, cepstra and spectrograms behind the upstream contract."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.interfaces import SpeechUpstream
from mynah.utility.audio.spectrogram import add_deltas, utterance_cmvn
from mynah.utility.configuration.load import to_plain
from mynah.utility.configuration.options import flat_options
from mynah.utility.errors import UserError

from .model import BASELINES, build_front_end


class UpstreamExpert(SpeechUpstream):
    """One hidden state: the features with their deltas, normalized per utterance, 160 samples a position.

    `name` is fbank, mfcc, spectrogram, mel or linear; `config` is an instance of that name's configuration.
    """

    num_hidden_states = 1

    def __init__(self, name: str, config: Any):
        super().__init__()
        self.name, self.config = name, config
        self.front_end, self.feature = build_front_end(name, config)
        self.hidden_size = self.front_end.num_bins(self.feature) * (config.num_deltas + 1)
        framing = self.front_end.framing
        self.samples_per_position, self.min_samples = framing.hop, framing.min_samples
        # Kaldi's features have no tensors of their own; this one tells `device` where the module was moved.
        self.register_buffer("place", torch.empty(0), persistent=False)

    @property
    def first_center(self) -> float:
        return self.front_end.framing.first_center

    def encode(self, wavs: Tensor, lengths: Tensor, num_hidden_states: int) -> tuple[tuple[Tensor], Tensor]:
        """wavs: (B, T) float32, lengths: (B,) -> ((B, F, hidden_size),), (B,) frames, in float32."""
        with torch.autocast(wavs.device.type, enabled=False):
            spectra, frames = self.front_end(wavs, lengths)
            features = add_deltas(self.front_end.feature(spectra, self.feature), frames, self.config.num_deltas)
            if self.config.cmvn:
                features = utterance_cmvn(features, frames)
        return (features,), frames

    def build_arguments(self) -> dict[str, Any]:
        return to_plain(self.config)


def build(name: str, ckpt: str | None, config: str | Path | None, overrides: dict[str, Any]) -> UpstreamExpert:
    """The baseline `name`; config: a YAML file of its configuration's fields; overrides: such fields, coming first.

    Raises UserError for a checkpoint, which a baseline cannot have, and for unknown or impossible options.
    """
    if ckpt is not None:
        raise UserError(f"{name} has no weights, so it cannot load {ckpt}; leave ckpt= (-k) out")
    return UpstreamExpert(name, flat_options(BASELINES[name][0], config, overrides, name))
