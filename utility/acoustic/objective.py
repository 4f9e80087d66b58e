"""The contract of objectives: what the acoustic model learns to predict at masked positions."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor, nn

from mynah.utility.acoustic.features import AcousticFeaturesConfig, Heard, StackedFeatures
from mynah.utility.configuration.sections import Section
from mynah.utility.nn.encoder import EncoderConfig


class Objective(nn.Module, ABC):
    """Base of every objective: prediction heads, targets, loss, metrics and figures.

    A subclass is one line in `objectives.py`. It is a module of the model: its weights are trained and its buffers
    (cluster centres, say) are saved with it. In a step, in this order:

        heard = features(wavs, lengths)
        truth = objective.targets(features, heard, chosen)             # without gradients
        loss = objective.loss(objective(hidden), truth, num_masked)    # hidden: of the masked positions only

    features: the model's `StackedFeatures`; heard: what it returned for the batch; chosen: (M,) int64, the masked
    positions of the batch among its B * N, row after row.
    Predictions and targets are any tensors, or mappings of tensors, of M rows.
    """

    Config: ClassVar[type[Section]]
    METRICS: ClassVar[tuple[str, ...]] = ()
    """The names that `metrics` gives."""
    TRAINING_PARTS: ClassVar[tuple[str, ...]] = ()
    """Submodules that a model which only gives features does without; it has None in their place."""
    FIT_OPTIONS: ClassVar[tuple[str, ...]] = ()
    """Keys of `Config` that `fit` alone reads: a model with others has the same objective."""

    def __init__(self, config: Any, encoder: EncoderConfig, features: StackedFeatures):
        """config: an instance of `Config`; encoder: gives the size of hidden states.

        A target that is a feature is to be declared: `features.declare(...)`.
        """
        super().__init__()
        self.config = config

    @classmethod
    def misfits(cls, config: Any, features: AcousticFeaturesConfig) -> Iterable[str | None]:
        """What is wrong with `config` together with these features: "key: what is wrong", or None."""
        return ()

    def fit(self, features: StackedFeatures, waveforms: Iterable[Tensor]) -> None:
        """Learn before the first step of a new run; nothing by default.

        waveforms: (T,) float32 crops of training utterances in a random order that the seed decides; each is read
        when it is asked for. What is learned must lie in buffers, so that checkpoints hold it. Called without
        gradients and on one thread, so that every process of a run learns the same.
        """

    @abstractmethod
    def targets(self, features: StackedFeatures, heard: Heard, chosen: Tensor) -> Any:
        """What is to be predicted at the masked positions."""

    @abstractmethod
    def forward(self, hidden: Tensor) -> Any:
        """hidden: (M, D), the encoder's last hidden state at the masked positions -> the predictions."""

    @abstractmethod
    def loss(self, predictions: Any, targets: Any, num_masked: Tensor) -> Tensor:
        """The () loss: summed over the M masked positions, divided by num_masked.

        num_masked: () the batch's own M, or the mean over processes; where it is zero the loss is zero, not NaN.
        """

    def metric_sizes(self) -> dict[str, int]:
        """METRICS -> how many values a position has of each; one by default."""
        return dict.fromkeys(self.METRICS, 1)

    def metrics(self, predictions: Any, targets: Any) -> dict[str, Tensor]:
        """METRICS -> (M,) values of the masked positions, or (M, size); their means go to `summary`."""
        return {}

    def summary(self, loss: float, means: dict[str, Tensor]) -> dict[str, float]:
        """What is logged, as val_NAME, of the held-out data's loss and of the metrics' means over its masked
        positions, (size,) each in double precision. By default the means themselves, which are of one value each."""
        return {name: mean.item() for name, mean in means.items()}

    def panels(self, features: StackedFeatures, heard: Heard, hidden: Tensor) -> dict[str, Tensor]:
        """Pictures of one utterance, drawn below the input: titles -> (frames, bins) values, or (frames,) whole
        numbers of things, which become strips of colours.

        hidden: (N, D) of all positions, masked or not.
        """
        return {}
