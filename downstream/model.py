"""An upstream, the choice of its features, and a task's expert, as one model."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mynah.downstream.features import Featurizer, UpstreamFeatures
from mynah.downstream.interfaces import DownstreamExpert, FeaturesConfig, SignalInfo, UpstreamInfo
from mynah.upstream.interfaces import Upstream
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.errors import UserError, is_lack_of_memory


class DownstreamModel(nn.Module):
    """Signals -> a task's predictions; `DownstreamModule` trains it, the upstream only with `fine_tune`."""

    def __init__(self, upstream: Upstream, expert: DownstreamExpert, config: FeaturesConfig, fine_tune: bool):
        super().__init__()
        featurizer = Featurizer(upstream.num_hidden_states, config, expert.reads_mean)
        self.features = UpstreamFeatures(upstream, featurizer, fine_tune)
        self.expert = expert

    @torch.no_grad()
    def predict(
        self, windows: Iterable[tuple[Tensor, int]], name: str = "", samples: int = 0, picture: Path | None = None
    ) -> dict[str, Any]:
        """The expert's prediction for one waveform or clip, also drawn into the file `picture` if one is given.

        windows: the signal, in consecutive parts that are encoded one by one, each with the file's sample that it
        begins with. name, samples: the file's path and length; 0 for what the windows cover.
        """
        self.eval()
        encoded, counts, signals, times, begin, end = [], [], [], [], None, 0
        for window, start in windows:
            begin = start if begin is None else begin
            features, count = self.features.encode(window)
            encoded.append(features)
            counts.append(count)
            if self.expert.modality == "speech" and not self.expert.reads_mean:
                times += self.expert.upstream.grid.times(features.shape[1], start).tolist()
            end = start + len(window)
            if picture is not None:
                signals.append(window)
        features = torch.cat(encoded, 1)
        if self.expert.reads_mean and len(counts) > 1:
            shares = torch.tensor(counts, device=features.device) / sum(counts)
            features = (shares[:, None] * features).sum(1, keepdim=True)
        lengths = torch.tensor([features.shape[1]], device=features.device)
        if picture is not None:
            own_times = [time - (begin or 0) / SAMPLE_RATE for time in times]  # the picture begins with the signal
            info = SignalInfo(name, end - (begin or 0), own_times)
            self.expert.draw_prediction(features, lengths, torch.cat(signals), picture, info)
        [result] = self.expert.predict(features, lengths, [SignalInfo(name, samples or end, times)])
        return result


def describe_upstream(upstream: Upstream) -> UpstreamInfo:
    """What a task's expert knows of the upstream. Raises UserError where it lacks an attribute of the contract."""
    if missing := [name for name in Upstream.__annotations__ if not hasattr(upstream, name)]:
        raise UserError(f"{_what(upstream)} sets no {' and no '.join(missing)} (upstream/README.md)")
    info = UpstreamInfo(
        name=upstream.name,
        modality=upstream.modality,
        feature_size=upstream.hidden_size,
        samples_per_position=upstream.get_downsample_rates(),
        num_hidden_states=upstream.num_hidden_states,
    )
    if upstream.modality == "speech":
        return dataclasses.replace(info, first_center=upstream.first_center)
    return dataclasses.replace(
        info,
        frames_per_clip=upstream.frames_per_clip,
        frame_size=upstream.frame_size,
        num_positions=upstream.num_positions,
        caption_decoder=upstream.caption_decoder(),
    )


@torch.no_grad()
def check_upstream(upstream: Upstream, signal: Tensor) -> None:
    """Raise UserError where what it makes of a signal is not what its attributes say."""
    try:
        found = upstream([signal])
        shapes = [tuple(state.shape) for state in found["hidden_states"]]
        num_positions = int(found["lengths"][0])
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError) as error:
        if is_lack_of_memory(error):
            raise
        raise UserError(f"{_what(upstream)} failed: {type(error).__name__}: {error}") from error
    if len(shapes) != upstream.num_hidden_states:
        raise UserError(
            f"{_what(upstream)} gives {len(shapes)} hidden states, but its num_hidden_states is "
            f"{upstream.num_hidden_states}"
        )
    expected = (1, num_positions, upstream.hidden_size)
    if wrong := [shape for shape in shapes if shape != expected]:
        raise UserError(
            f"{_what(upstream)} gives hidden states of shape {wrong[0]}, but by its hidden_size and lengths they are "
            f"{expected}"
        )


def _what(upstream: Upstream) -> str:
    return f"{type(upstream).__module__}: upstream {getattr(upstream, 'name', type(upstream).__name__)!r}"
