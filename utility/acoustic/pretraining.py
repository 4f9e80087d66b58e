"""Masked acoustic pretraining: any objective on the acoustic model, as a LightningModule."""

import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from mynah.utility.acoustic.config import AcousticConfig, AcousticPretrainConfig
from mynah.utility.acoustic.dataset import MaskedSpeechDataset, collate
from mynah.utility.acoustic.figures import ObjectivePictures
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.audio.corpus import SpeechDataset, Utterance, scan_corpora, split_validation
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.load import to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, load_weights, select_weights
from mynah.utility.experiments.folder import Experiment
from mynah.utility.nn.size import describe_size
from mynah.utility.training.identity import dataset_fingerprint
from mynah.utility.training.loaders import BadFileLog
from mynah.utility.training.optimization import decay_groups
from mynah.utility.training.pretraining import PretrainingModule

FIT_STREAM = 2
"""Sets the order in which utterances are offered to `Objective.fit` apart from other random choices."""

log = logging.getLogger("mynah")


class AcousticPretraining(PretrainingModule):
    """Trains `model` to predict, as its objective says, what is masked of the corpora of `config`."""

    def __init__(self, name: str, model: AcousticModel, config: AcousticPretrainConfig, experiment: Experiment):
        super().__init__(config, experiment)
        self.name, self.model, self.upstream_name = name, model, name

    def prepare(self) -> None:
        """Find the utterances, hold some out, and fit the objective of a new run.

        Raises UserError where the corpora cannot be used.
        """
        datarc = self.config.datarc
        utterances = scan_corpora(
            datarc.file_path,
            min_samples=max(datarc.min_timestep, self.model.positions.min_samples),
            max_bad_fraction=datarc.max_bad_fraction,
            log_path=self.skipped,
            max_seconds=datarc.max_seconds if datarc.max_timestep is None or datarc.trim_silence else math.inf,
        )
        self.train_utterances, self.validation_items = split_validation(
            utterances, datarc.valid_fraction, datarc.split_seed
        )
        self.bad_files = BadFileLog(self.skipped, len(utterances), datarc.max_bad_fraction)
        hours = sum(utterance.samples for utterance in utterances) / SAMPLE_RATE / 3600
        names = ", ".join(datarc.file_path)
        log.info("%s: %d utterances, %.2f h; %d held out", names, len(utterances), hours, len(self.validation_items))
        if self.is_new_run:
            self.model.objective.fit(self.model.features, self._waveforms())

    def _waveforms(self) -> Iterator[Tensor]:
        """Crops of training utterances in an order that the seed decides, without those that cannot be read."""
        speech = self._dataset(self.train_utterances)
        for index in np.random.default_rng([self.seed, FIT_STREAM]).permutation(len(speech)).tolist():
            signal = speech[(0, index)]["signal"]
            if signal is not None:
                yield signal

    def data_fingerprints(self) -> dict[str, str]:
        """Of what is trained on and of what is held out."""
        parts = {"training": self.train_utterances, "held-out": self.validation_items}
        return {part: dataset_fingerprint(SpeechDataset(items, None, 0)) for part, items in parts.items()}

    def describe_size(self) -> str:
        return describe_size(self.model.encoder, self.model)

    def configure_callbacks(self) -> list[Callback]:
        every = self.config.logging.pictures_every_n_steps
        return [ObjectivePictures(every)] if every else []

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.config.optimizer
        groups = decay_groups(self.model, optimizer.lr, optimizer.weight_decay, "model")
        return self.optimizers_for(groups, optimizer, self.config.scheduler, self.config.trainer["max_steps"])

    def train_dataloader(self) -> DataLoader:
        dataset = self._dataset(self.train_utterances)
        return self.make_training_loader(dataset, dataset.speech.lengths, collate)

    def val_dataloader(self) -> DataLoader | list:
        if not self.validation_items:
            return []
        dataset = self._dataset(self.validation_items)
        return self.make_evaluation_loader(dataset, dataset.speech.lengths, collate)

    def _dataset(self, utterances: list[Utterance]) -> MaskedSpeechDataset:
        datarc = self.config.datarc
        speech = SpeechDataset(utterances, datarc.max_timestep, self.seed, datarc.trim_silence)
        return MaskedSpeechDataset(speech, self.model.positions, self.model.num_input_bins, self.config.masking)

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, index: int) -> dict[str, Any]:
        if not batch["names"]:
            return batch
        moved = {key: batch[key].to(device, non_blocking=True) for key in ("wavs", "lengths")}
        return {**batch, **moved, "plan": batch["plan"].to(device)}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        num_masked = self.mean_over_processes(batch["plan"].target.sum())
        loss = self.model.loss(batch["wavs"], batch["lengths"], batch["plan"], num_masked)
        self.track_loss(loss, batch["names"])
        self.log("loss", loss, prog_bar=True, batch_size=len(batch["names"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.val_sums: dict[str, Tensor] = {}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.bad_files.note(batch["bad"])
        if not batch["names"]:
            return
        count = batch["plan"].target.sum()
        objective = self.model.objective
        predictions, targets = self.model.predict(batch["wavs"], batch["lengths"], batch["plan"])
        sums = {"count": count.double(), "loss": objective.loss(predictions, targets, count).double() * count}
        for name, values in objective.metrics(predictions, targets).items():
            sums[name] = values.double().sum()
        for name, value in sums.items():
            self.val_sums[name] = self.val_sums.get(name, 0) + value

    def on_validation_epoch_end(self) -> None:
        """val_loss and val_ the metrics: over all masked positions held out, whatever their batches."""
        names = ["count", "loss", *self.model.objective.METRICS]
        zero = torch.zeros((), dtype=torch.float64, device=self.device)
        sums = torch.stack([self.val_sums.get(name, zero) for name in names])  # a process may have had no batch
        count, loss, *metrics = self.trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        if not count:
            raise UserError(
                f"none of the {len(self.validation_items)} held-out utterances could be read; see {self.skipped}"
            )
        self.report_val_loss(loss / count)
        for name, value in zip(names[2:], metrics, strict=True):
            self.log(f"val_{name}", value / count, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        plain = to_plain(self.config)
        checkpoint[METADATA] = self.checkpoint_metadata(
            self.name, {key: plain[key] for key in AcousticConfig.model_fields}
        )

    def init_from(self, checkpoint: dict[str, Any], source: str) -> None:
        """Take the weights alone of another run (--init-from)."""
        load_weights(self.model, select_weights(checkpoint["state_dict"], "model."), source)
        log.info("initialized from %s (step %d)", source, checkpoint[METADATA]["step"])
