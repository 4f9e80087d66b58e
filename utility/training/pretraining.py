"""What every pretraining has: a loss on held-out data that is followed from before the first step to the end."""

from typing import Any

from mynah.utility.configuration.load import to_plain
from mynah.utility.experiments.checkpoint import CARD, make_card
from mynah.utility.experiments.folder import Experiment
from mynah.utility.training.module import TrainingModule


class PretrainingModule(TrainingModule):
    """A TrainingModule whose best checkpoint is that of the lowest val_loss.

    A subclass reports val_loss to `note_val_loss`, and saves what `pretraining_card` returns.
    """

    monitor, mode = "val_loss", "min"

    def __init__(self, config: Any, experiment: Experiment):
        super().__init__()
        self.config, self.seed, self.skipped = config, config.seed, experiment.skipped_files
        self.first_val_loss: float | None = None
        self.last_val_loss: float | None = None
        self.validated_at = -1
        """The step of last_val_loss."""

    def note_val_loss(self, val_loss: float) -> None:
        """Log it and remember it."""
        self.last_val_loss, self.validated_at = val_loss, self.global_step
        if self.first_val_loss is None:
            self.first_val_loss = val_loss
        self.log("val_loss", val_loss, prog_bar=True)

    def pretraining_card(self, name: str, config: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The card of a checkpoint of the upstream `name`; config, more: as `make_card` takes them."""
        return make_card(
            "pretrain",
            name,
            config,
            **more,
            pretrain_config=to_plain(self.config),
            step=self.global_step,
            first_val_loss=self.first_val_loss,
            last_val_loss=self.last_val_loss,
        )

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        card = checkpoint[CARD]
        self.first_val_loss, self.last_val_loss = card["first_val_loss"], card["last_val_loss"]
