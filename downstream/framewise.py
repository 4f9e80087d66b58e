"""Tasks that give each position a label: everything but where the utterances and their alignments come from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream import interfaces
from mynah.downstream.speech import Corpus, SpeechTask
from mynah.utility.audio.alignment import IGNORED, FrameLabels, Segment
from mynah.utility.audio.files import UnreadableAudio, read_audio
from mynah.utility.evaluation.confusion import draw_confusion
from mynah.utility.evaluation.frame_pictures import FramePanel, draw_frames
from mynah.utility.evaluation.frames import (
    PICTURED,
    confusion_of,
    frame_metrics,
    label_runs,
    record_frames,
    runs_in_time,
    write_frame_table,
)


class FrameExpert(SpeechTask):
    """A subclass says what `read_corpus` finds, a list of `Segment`s an utterance, and may set what is below."""

    monitor = "accuracy"
    mode = "max"
    outside: str | None = None
    """The label of what no segment covers; None leaves such positions out of loss and metrics."""

    def __init__(
        self,
        upstream: interfaces.UpstreamInfo,
        config: Any,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        super().__init__(upstream, config, state, folder)
        self.labels = self.label_names(self.corpus) if state is None else list(state["labels"])
        self.check_labels(self.labels)
        self.indices = {label: index for index, label in enumerate(self.labels)}
        self.at_crop = FrameLabels(upstream.grid, IGNORED if self.outside is None else self.indices[self.outside])
        self.model = self.build_head(upstream.feature_size, len(self.labels))

    def build_head(self, feature_size: int, num_labels: int) -> nn.Module:
        """(B, N, feature_size) -> logits (B, N, num_labels): one linear layer, as SUPERB's and the Audio ALBERT
        paper's probes of frames have it, unless a subclass knows better."""
        return nn.Linear(feature_size, num_labels)

    def label_names(self, corpus: Corpus) -> list[str]:
        """The classes, in the order of their indices: those of training and `outside`, sorted."""
        found = {segment.label for _, segments in corpus["train"] for segment in segments}
        return sorted(found | ({self.outside} if self.outside is not None else set()))

    def encode_label(self, target: Sequence[Segment]) -> list[tuple[float, float, int]]:
        return [(segment.start, segment.end, self.indices[segment.label]) for segment in target]

    def state(self) -> dict[str, Any]:
        return {"labels": self.labels}

    def forward(
        self,
        split: str,
        features: Tensor,
        lengths: Tensor,
        labels: list[Tensor],
        records: dict[str, list],
        names: list[str],
    ) -> Tensor:
        """labels: B of (M,) int64, classes by position; IGNORED for none. The loss is the mean over the frames."""
        logits = self.model(features).float()
        targets = pad_labels(labels, lengths, features.shape[1])
        losses = F.cross_entropy(logits.transpose(1, 2), targets, ignore_index=IGNORED, reduction="none")
        if split != "train":
            record_frames(logits, targets, losses, lengths, names, records)
        return losses.sum() / (targets != IGNORED).sum().clamp(min=1)

    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        """accuracy and loss over all frames of the split; chance: the share of the most frequent class."""
        return frame_metrics(records, len(self.labels))

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        """predictions.csv (name, frames, accuracy, loss), confusion.png, and frames.png of the first utterances."""
        counts = confusion_of(records, len(self.labels))
        share = np.trace(counts) / max(counts.sum(), 1)
        title = f"{split}: {counts.sum()} frames of {len(records['name'])} utterances, accuracy {100 * share:.1f} %"
        written = [
            write_frame_table(folder / "predictions.csv", records),
            draw_confusion(counts, self.labels, folder / "confusion.png", title),
        ]
        if panels := self._panels(records):
            written.append(draw_frames(panels, self.labels, folder / "frames.png"))
        return written

    def _panels(self, records: dict[str, list]) -> list[FramePanel]:
        """The utterances whose frames were kept, as far as their files can still be read."""
        panels = []
        for name, true, predicted in zip(records["name"], records["true"], records["predicted"], strict=True):
            if len(panels) == PICTURED or not true:
                continue
            try:
                signal = read_audio(name).numpy()
            except UnreadableAudio:
                continue
            times = self.upstream.grid.times(sum(count for _, count in true))
            strips = {"true": runs_in_time(true, times), "predicted": runs_in_time(predicted, times)}
            panels.append(FramePanel(Path(name).name, signal, strips))
        return panels

    def predict(
        self, features: Tensor, lengths: Tensor, signals: Sequence[interfaces.SignalInfo] = ()
    ) -> list[dict[str, Any]]:
        """{"segments": [{"label", "start", "end" (seconds), "probability" (mean over its positions)}, ...]}."""
        probabilities = self.model(features).float().softmax(-1)
        results = []
        for row, (length, signal) in enumerate(zip(lengths.tolist(), signals, strict=True)):
            runs = label_runs(probabilities[row, :length], np.asarray(signal.times[:length]), signal.seconds)
            results.append({"segments": [{"label": self.labels[label], **rest} for label, rest in runs]})
        return results

    def draw_prediction(
        self,
        features: Tensor,
        lengths: Tensor,
        signal: Tensor,
        path: Path,
        info: interfaces.SignalInfo | None = None,
    ) -> None:
        """A spectrogram with the predicted segments below it."""
        if info is None:
            info = interfaces.SignalInfo(path.name, len(signal), self.upstream.grid.times(int(lengths[0])).tolist())
        [result] = self.predict(features, lengths, [info])
        strip = [(one["start"], one["end"], self.indices[one["label"]]) for one in result["segments"]]
        draw_frames([FramePanel(path.stem, signal.cpu().numpy(), {"predicted": strip})], self.labels, path)

    def format_prediction(self, result: dict[str, Any]) -> str:
        return " ".join(f"{one['label']} ({one['start']:.2f}-{one['end']:.2f})" for one in result["segments"])


def pad_labels(labels: Sequence[Tensor], lengths: Tensor, num_positions: int) -> Tensor:
    """B of (M,) int64, each at least as long as its valid positions -> (B, num_positions), IGNORED beyond them."""
    rows = [F.pad(row[:num_positions], (0, max(0, num_positions - len(row))), value=IGNORED) for row in labels]
    targets = torch.stack(rows).to(lengths.device, non_blocking=True)
    padding = torch.arange(num_positions, device=lengths.device) >= lengths[:, None]
    return targets.masked_fill(padding, IGNORED)
