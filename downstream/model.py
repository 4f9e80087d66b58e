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
    """What a task's expert knows of the upstream."""
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
