"""The contract of pretraining modules."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from mynah.utility.configuration.load import to_plain
from mynah.utility.experiments.checkpoint import METADATA, make_metadata
from mynah.utility.experiments.folder import Experiment
from mynah.utility.training.config import PretrainConfig
from mynah.utility.training.module import TrainingModule


class PretrainingModule(TrainingModule, ABC):
    """What `build_pretraining` of an upstream's expert.py returns. Its best checkpoint has the lowest val_loss.

    The run calls, in this order: the constructor; for a resumed run, loading of the weights, else `init_from` if
    asked for; `prepare`; `describe_size`; then Lightning's own methods of training and validation. A subclass
    implements what is abstract here and Lightning's `training_step`, `validation_step` and `configure_optimizers`. It
    calls `report_val_loss` once a validation, and `on_save_checkpoint` puts what `checkpoint_metadata` returns under
    METADATA.
    """

    monitor, mode = "val_loss", "min"
    config: PretrainConfig
    validation_items: Sequence[Any]
    """What is held out for validation; set by `prepare` or before it. Empty: there is no validation."""

    def __init__(self, config: PretrainConfig, experiment: Experiment):
        super().__init__()
        self.config, self.seed, self.skipped = config, config.seed, experiment.skipped_files
        self.is_new_run = experiment.resume_from is None
        self.first_val_loss: float | None = None
        self.last_val_loss: float | None = None
        self.validated_at = -1
        """The step of last_val_loss."""

    @abstractmethod
    def prepare(self) -> None:
        """Find the data and say in the log what there is. Sets `bad_files`. Raises UserError where it is unusable."""

    @abstractmethod
    def init_from(self, checkpoint: dict[str, Any], source: str) -> None:
        """Take the weights, not the optimizer, of another run (--init-from). Raises UserError if they do not fit.

        checkpoint: as it was read from the file `source`.
        """

    @abstractmethod
    def describe_size(self) -> str:
        """The numbers of weights, for a line of the log."""

    @abstractmethod
    def train_dataloader(self) -> DataLoader:
        """`make_training_loader` of the training data."""

    @abstractmethod
    def val_dataloader(self) -> DataLoader | list:
        """`make_evaluation_loader` of what is held out; [] if nothing is."""

    def report_val_loss(self, val_loss: float) -> None:
        """Log it and remember it."""
        self.last_val_loss, self.validated_at = val_loss, self.global_step
        self.validation_metrics = {"val_loss": val_loss}
        if self.first_val_loss is None:
            self.first_val_loss = val_loss
        self.log("val_loss", val_loss, prog_bar=True)

    def checkpoint_metadata(self, name: str, config: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The metadata of a checkpoint of the upstream `name`; config, more: as `make_metadata` takes them."""
        return make_metadata(
            "pretrain",
            name,
            config,
            **more,
            **self.run_metadata(),
            pretrain_config=to_plain(self.config),
            step=self.global_step,
            first_val_loss=self.first_val_loss,
            last_val_loss=self.last_val_loss,
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        metadata = checkpoint[METADATA]
        self.first_val_loss, self.last_val_loss = metadata["first_val_loss"], metadata["last_val_loss"]
