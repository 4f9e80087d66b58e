"""The contract of objectives: what the acoustic model learns to predict at masked positions."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor, nn

from mynah.utility.acoustic.features import AcousticFeaturesConfig, StackedFeatures
from mynah.utility.configuration.sections import Section
from mynah.utility.nn.encoder import EncoderConfig


class Objective(nn.Module, ABC):
    """Base of every objective: prediction heads, targets, loss, metrics and figures.

    A subclass is one line in `objectives.py`. It is a module of the model: its weights are trained and its buffers
    (cluster centres, say) are saved with it. In a step, in this order:

        truth = objective.targets(features, spectra, frames, target)   # without gradients
        loss = objective.loss(objective(hidden), truth, num_masked)    # hidden: of the masked positions only

    features: the model's `StackedFeatures`; spectra, frames: what it returned for the batch; target: (B, N) bool, the
    M masked positions of the batch. Predictions and targets are any tensors, or mappings of tensors, of M rows.
    """

    Config: ClassVar[type[Section]]
    METRICS: ClassVar[tuple[str, ...]] = ()
    """The names that `metrics` gives."""

    def __init__(self, config: Any, encoder: EncoderConfig, features: StackedFeatures):
        """config: an instance of `Config`; encoder: gives the size of hidden states."""
        super().__init__()
        self.config = config

    @classmethod
    def misfits(cls, config: Any, features: AcousticFeaturesConfig) -> Iterable[str | None]:
        """What is wrong with `config` together with these features: "key: what is wrong", or None."""
        return ()

    def fit(self, features: StackedFeatures, waveforms: Iterable[Tensor]) -> None:
        """Learn before the first step of a new run; nothing by default.

        waveforms: (T,) float32 crops of training utterances in a random order that the seed decides; each is read
        when it is asked for. What is learned must lie in buffers, so that checkpoints hold it.
        """

    @abstractmethod
    def targets(self, features: StackedFeatures, spectra: Tensor, frames: Tensor, target: Tensor) -> Any:
        """What is to be predicted at the masked positions."""

    @abstractmethod
    def forward(self, hidden: Tensor) -> Any:
        """hidden: (M, D), the encoder's last hidden state at the masked positions -> the predictions."""

    @abstractmethod
    def loss(self, predictions: Any, targets: Any, num_masked: Tensor) -> Tensor:
        """The () loss: summed over the M masked positions, divided by num_masked.

        num_masked: () the batch's own M, or the mean over processes; where it is zero the loss is zero, not NaN.
        """

    def metrics(self, predictions: Any, targets: Any) -> dict[str, Tensor]:
        """METRICS -> (M,) values of the masked positions, whose mean over the held-out data is logged as val_NAME."""
        return {}

    def panels(self, features: StackedFeatures, spectra: Tensor, frames: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        """Pictures of one utterance: titles -> (frames, bins), drawn below the input.

        hidden: (N, D) of all positions, masked or not.
        """
        return {}
