"""Speaker verification: did one speaker say both (VoxCeleb1, or any folder of speaker folders)?"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mynah.downstream import interfaces
from mynah.downstream.speech import Corpus, SpeechTask, SpeechTaskConfig
from mynah.utility.data.media_files import printable
from mynah.utility.demo.speech import demo_voxceleb1
from mynah.utility.errors import UserError
from mynah.utility.evaluation.verification import (
    cosine_scores,
    equal_error_rate,
    error_rates,
    min_detection_cost,
    rates_at,
)

from .dataset import VerificationCorpus, VerificationDataConfig, read_corpus, speaker_of
from .report import draw_scores, write_scores
from .trials import Trial, utterances_of
from .xvector import SpeakerHead, XVector, XVectorConfig, additive_margin_loss

CLOSEST = 3

log = logging.getLogger("mynah")


class VerificationConfig(SpeechTaskConfig):
    """The schema of config.yaml."""

    datarc: VerificationDataConfig = Field(default_factory=VerificationDataConfig)
    model: XVectorConfig = Field(default_factory=XVectorConfig)


class DownstreamExpert(SpeechTask):
    """An x-vector network that learns to tell the training speakers apart; embeddings of others are compared.

    Dev and test have no loss: their speakers are none of those that it was trained with.
    """

    Config = VerificationConfig
    monitor = "eer"
    mode = "min"
    name, names = "speaker", "speakers"

    def __init__(
        self,
        upstream: interfaces.UpstreamInfo,
        config: Any,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        super().__init__(upstream, config, state, folder)
        found = {speaker for _, speaker in self.verification.train} if state is None else state["speakers"]
        self.speakers = sorted(found)
        self.indices = {speaker: index for index, speaker in enumerate(self.speakers)}
        self.xvector = XVector(upstream.feature_size, config.model)
        self.head = SpeakerHead(config.model.embedding_size, len(self.speakers))
        # Among the weights, so that the best checkpoint has its own; 0 until dev was first scored.
        self.register_buffer("threshold", torch.zeros(()))

    @classmethod
    def use_demo_data(cls, config: VerificationConfig) -> None:
        config.datarc.file_path = str(demo_voxceleb1())
        config.datarc.trial_list = ""

    def state(self) -> dict[str, Any]:
        return {"speakers": self.speakers}

    @cached_property
    def verification(self) -> VerificationCorpus:
        """The speakers and trials, on first use, so that inference needs no data."""
        return read_corpus(self.config.datarc, self.folder, self.skipped_files)

    def read_corpus(self) -> Corpus:
        """Speakers to learn in train; every utterance of the trials once in dev and test."""
        listed = {split: self.verification.in_trials(split) for split in ("dev", "test")}
        return {
            "train": list(self.verification.train),
            **{split: [(utterance, None) for utterance in utterances] for split, utterances in listed.items()},
        }

    def encode_label(self, target: str | None) -> int | None:
        return None if target is None else self.indices[target]

    def get_dataset(self, split: str) -> Any:
        if split != "train":
            self._warn_of_known_speakers(split)
        return super().get_dataset(split)

    def _warn_of_known_speakers(self, split: str) -> None:
        listed = {speaker_of(name) for name in utterances_of(self.verification.trials[split])}
        if known := sorted(listed & set(self.speakers)):
            log.warning(
                "%d of the %d speakers of the %s trials were trained with, such as %s; their error rate says little",
                *(len(known), len(listed), split, ", ".join(known[:3])),
            )

    def forward(
        self,
        split: str,
        features: Tensor,
        lengths: Tensor,
        labels: list[int | None],
        records: dict[str, list],
        names: list[str],
    ) -> Tensor:
        """Records of dev and test: "path", and "embedding", the bytes of its float32 values."""
        embeddings = self.xvector(features, lengths)
        if split == "train":
            settings, speakers = self.config.model, torch.tensor(labels, device=embeddings.device)
            return additive_margin_loss(self.head(embeddings), speakers, settings.scale, settings.margin)
        rows = F.normalize(embeddings.detach().float(), dim=-1).cpu().numpy()
        records.setdefault("path", []).extend(names)
        records.setdefault("embedding", []).extend(row.tobytes() for row in rows)
        return embeddings.new_zeros(())

    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        """eer, min_dcf, threshold (where misses and false alarms are equal), the number of trials; and misses and
        false_alarms at the threshold of dev."""
        trials, scores = self._score(split, records)
        targets = np.array([trial.target for trial in trials])
        if not np.isfinite(scores).all():
            keys = ("eer", "min_dcf", "threshold", "misses", "false_alarms")
            return {**dict.fromkeys(keys, float("nan")), "trials": len(trials)}
        rates = error_rates(scores, targets)
        eer, threshold = equal_error_rate(rates)
        if split == "dev":
            self.threshold.fill_(threshold)
        misses, false_alarms = rates_at(scores, targets, self.threshold.item())
        return {
            "eer": eer,
            "min_dcf": min_detection_cost(rates),
            "threshold": threshold,
            "misses": misses,
            "false_alarms": false_alarms,
            "trials": len(trials),
        }

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        """trials.csv (label, score, first, second) and scores.png."""
        trials, scores = self._score(split, records)
        files = [write_scores(folder / "trials.csv", trials, scores)]
        if np.isfinite(scores).all():
            targets = np.array([trial.target for trial in trials])
            title = f"{split}: {len(trials)} trials among {len(records['path'])} utterances"
            files.append(draw_scores(folder / "scores.png", scores, targets, title, self.threshold.item()))
        return files

    def _score(self, split: str, records: dict[str, list]) -> tuple[list[Trial], np.ndarray]:
        """The trials whose files were both read, and their cosines. Raises UserError where too many were not."""
        corpus, rows = self.verification, {path: row for row, path in enumerate(records["path"])}
        trials, first, second = [], [], []
        for trial in corpus.trials[split]:
            pair = [rows.get(corpus.utterances[name].path) for name in (trial.first, trial.second)]
            if None not in pair:
                trials.append(trial)
                first.append(pair[0])
                second.append(pair[1])
        listed, own = len(corpus.trials[split]), sum(trial.target for trial in trials)
        lost, allowed = listed - len(trials), self.config.datarc.max_bad_fraction
        if lost > allowed * listed or not 0 < own < len(trials):
            raise UserError(
                f"{lost} of the {listed} {split} trials have a file that could not be read; {own} of one speaker and "
                f"{len(trials) - own} of two are left. datarc.max_bad_fraction={allowed:g} allows fewer, and both "
                f"kinds are needed; see {self.skipped_files}"
            )
        if lost:
            log.warning("%d of the %d %s trials are left out: a file could not be read", lost, listed, split)
        embeddings = np.stack([np.frombuffer(each, dtype=np.float32) for each in records["embedding"]])
        return trials, cosine_scores(embeddings, np.array(first), np.array(second))

    def predict(
        self, features: Tensor, lengths: Tensor, signals: Sequence[interfaces.SignalInfo] = ()
    ) -> list[dict[str, Any]]:
        """{"embedding": floats, of length 1, "closest": [{"speaker", "similarity"}, ...]}: the training speakers
        whose class is nearest; that similarity is a cosine of another layer than two embeddings'."""
        embeddings = self.xvector(features, lengths)
        nearest = self.head(embeddings).topk(min(CLOSEST, len(self.speakers)), dim=-1)
        results = []
        for row, values, indices in zip(F.normalize(embeddings.float(), dim=-1), *nearest, strict=True):
            closest = [
                {"speaker": self.speakers[index], "similarity": value}
                for index, value in zip(indices.tolist(), values.tolist(), strict=True)
            ]
            results.append({"embedding": row.tolist(), "closest": closest})
        return results

    def compare_predictions(self, result: dict[str, Any], first: dict[str, Any], first_path: Path) -> dict[str, Any]:
        """{"compared_with": the first file, "similarity": cosine, "threshold": from dev, "same_speaker": bool}."""
        similarity = float(np.dot(result["embedding"], first["embedding"]))
        threshold = self.threshold.item()
        return {
            "compared_with": str(first_path),
            "similarity": similarity,
            "threshold": threshold,
            "same_speaker": similarity >= threshold,
        }

    def format_prediction(self, result: dict[str, Any]) -> str:
        closest = ", ".join(f"{each['speaker']} {each['similarity']:.2f}" for each in result["closest"])
        if "similarity" not in result:
            return f"closest of the training speakers: {closest}"
        same, than = ("one speaker", "at least") if result["same_speaker"] else ("two speakers", "less than")
        similarity, threshold = result["similarity"], result["threshold"]
        digits = 3 if result["same_speaker"] or round(similarity, 3) < round(threshold, 3) else 7
        return (
            f"{similarity:.{digits}f} with {printable(result['compared_with'])}: {same} ({than} "
            f"{threshold:.{digits}f}); closest in training: {closest}"
        )
