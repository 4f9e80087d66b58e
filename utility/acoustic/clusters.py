"""Masked cluster prediction, the objective of MelHuBERT (Lin et al. 2023): of which of K clusters is a position?

The clusters are found by k-means before the first step: of a feature (stage 1), or of a hidden state of an earlier
model, the teacher (stage 2).
"""

import logging
import warnings
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.acoustic.features import AcousticFeaturesConfig, FeatureConfig, Heard, StackedFeatures
from mynah.utility.acoustic.objective import Objective
from mynah.utility.acoustic.teacher import Teacher, TeacherConfig
from mynah.utility.configuration.sections import Section
from mynah.utility.errors import UserError
from mynah.utility.nn.encoder import EncoderConfig

log = logging.getLogger("mynah")

BATCH, TRIALS, PASSES, PATIENCE = 10_000, 5, 100, 50
"""Of MiniBatchKMeans: positions a step, initial centres that are tried, the most passes over the sample, and steps
without an improvement before it ends."""


class ClustersConfig(Section):
    """What is clustered."""

    num_clusters: int = Field(512, ge=2, le=8192)
    """K; 100 for an hour of speech, 512 for a hundred."""
    feature: FeatureConfig = Field(default_factory=lambda: FeatureConfig(cmvn="corpus"))
    """The feature whose positions, of S frames each, are clustered, where there is no teacher."""
    teacher: TeacherConfig | None = None
    """The earlier model whose hidden states are clustered instead; `init.clusters` gives it."""
    fit_positions: int = Field(500_000, ge=2)
    """Positions that k-means sees: of as many training crops, at random, as it takes."""


class Clusters(Objective):
    """Predictions are (M, K) logits, targets (M,) int64 clusters."""

    Config = ClustersConfig
    METRICS = ("accuracy", "targets", "predictions")
    TRAINING_PARTS = ("teacher",)
    FIT_OPTIONS = ("fit_positions",)

    def __init__(self, config: ClustersConfig, encoder: EncoderConfig, features: StackedFeatures):
        super().__init__(config, encoder, features)
        if config.teacher is None:
            features.declare(config.feature)
            self.teacher, size = None, features.size(config.feature)
        else:
            self.teacher, size = Teacher(config.teacher), config.teacher.model.hidden_size
            self.teacher.check_positions(features.positions)
        self.output = nn.Linear(encoder.hidden_size, config.num_clusters)
        self.register_buffer("centroids", torch.zeros(config.num_clusters, size))
        self.register_buffer("perplexity", torch.zeros(()))

    @classmethod
    def misfits(cls, config: ClustersConfig, features: AcousticFeaturesConfig) -> Iterable[str | None]:
        if config.teacher is None:
            yield features.refusal("feature.feature", config.feature.feature)

    def fit(self, features: StackedFeatures, waveforms: Iterable[Tensor]) -> None:
        """k-means of a sample. Raises UserError where the corpus has fewer positions than clusters."""
        sample = self._sample(features, waveforms)
        count, wanted = len(sample), self.config.num_clusters
        if count < wanted:
            raise UserError(
                f"objective.clusters.num_clusters={wanted}: the training data has {count} positions; give fewer "
                "clusters, or more speech"
            )
        log.info("looking for %d clusters of %d positions", wanted, count)
        self.centroids.copy_(torch.from_numpy(kmeans(sample.numpy(), wanted)))
        sizes = torch.cat([self.assign(part) for part in sample.split(BATCH)]).bincount(minlength=wanted)
        self.perplexity.copy_(entropy(sizes / count).exp())
        log.info("%d clusters, %d of them used, perplexity %.1f", wanted, (sizes > 0).sum(), self.perplexity)

    def _sample(self, features: StackedFeatures, waveforms: Iterable[Tensor]) -> Tensor:
        """(P, D) vectors to cluster; P is fit_positions, or all there are."""
        rows, left = [], self.config.fit_positions
        for wav in waveforms:
            heard = features(wav[None], torch.tensor([len(wav)]))
            rows.append(self.vectors(features, heard, self._all_of(features, heard))[:left])
            left -= len(rows[-1])
            if not left:
                break
        return torch.cat(rows) if rows else torch.empty(0, self.centroids.shape[1])

    def vectors(self, features: StackedFeatures, heard: Heard, chosen: Tensor) -> Tensor:
        """What is clustered, at the positions chosen: (M,) int64 of the batch's B * N: (M, D) float32."""
        if self.teacher is None:
            return features.at(heard, self.config.feature, chosen)
        return self.teacher(heard.wavs, heard.lengths).flatten(0, 1)[chosen].float()

    def assign(self, vectors: Tensor) -> Tensor:
        """vectors: (M, D) float32 -> (M,) int64, the nearest centroid of each, argmin_k |x - c_k|^2."""
        with torch.autocast(vectors.device.type, enabled=False):
            centroids = self.centroids.float()
            return (centroids.square().sum(1) / 2 - vectors @ centroids.T).argmin(1)

    def targets(self, features: StackedFeatures, heard: Heard, chosen: Tensor) -> Tensor:
        return self.assign(self.vectors(features, heard, chosen))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(hidden)

    def loss(self, predictions: Tensor, targets: Tensor, num_masked: Tensor) -> Tensor:
        """Cross-entropy, in nats a masked position (Lin et al. 2023, sec. 3)."""
        return F.cross_entropy(predictions.float(), targets, reduction="sum") / num_masked.clamp(min=1)

    def metric_sizes(self) -> dict[str, int]:
        return {"accuracy": 1, "targets": self.config.num_clusters, "predictions": self.config.num_clusters}

    def metrics(self, predictions: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Whether each is right, and how often each cluster is there and is predicted."""
        likeliest, clusters = predictions.argmax(1), self.config.num_clusters
        return {
            "accuracy": likeliest == targets,
            "targets": F.one_hot(targets, clusters),
            "predictions": F.one_hot(likeliest, clusters),
        }

    def summary(self, loss: float, means: dict[str, Tensor]) -> dict[str, float]:
        """loss_share: what is left of the entropy of the clusters, 1 where the context tells nothing."""
        return {
            "accuracy": means["accuracy"].item(),
            "loss_share": loss / max(entropy(means["targets"]).item(), torch.finfo(torch.float32).eps),
            "used_clusters": (means["targets"] > 0).sum().item(),
            "predicted_clusters": (means["predictions"] > 0).sum().item(),
        }

    def panels(self, features: StackedFeatures, heard: Heard, hidden: Tensor) -> dict[str, Tensor]:
        targets = self.targets(features, heard, self._all_of(features, heard))
        predictions = self(hidden).argmax(1)
        strips = {"target clusters": targets, "predicted clusters": predictions}
        return {
            title: strip.repeat_interleave(features.positions.frames_per_position) for title, strip in strips.items()
        }

    def _all_of(self, features: StackedFeatures, heard: Heard) -> Tensor:
        """(N,) int64: every position of a single utterance."""
        return torch.arange(int(features.positions.count(heard.lengths[0])), device=heard.wavs.device)


def kmeans(vectors: np.ndarray, num_clusters: int) -> np.ndarray:
    """vectors: (P, D) float32 -> (K, D) float32 centroids, the same for the same vectors."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    search = MiniBatchKMeans(
        num_clusters,
        batch_size=BATCH,
        n_init=TRIALS,
        max_iter=PASSES,
        max_no_improvement=PATIENCE,
        reassignment_ratio=0.0,
        random_state=0,  # the order of the vectors follows the seed
        compute_labels=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than clusters: some stay unused
        return search.fit(vectors).cluster_centers_.astype(np.float32)


def entropy(shares: Tensor) -> Tensor:
    """shares: (K,) that sum to one -> their () entropy in nats."""
    return -torch.special.xlogy(shares, shares).sum()
