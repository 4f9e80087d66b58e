"""Masked acoustic pretraining: any objective on the acoustic model, as a LightningModule."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from mynah.utility.acoustic.config import AcousticConfig, AcousticPretrainConfig
from mynah.utility.acoustic.dataset import MaskedSpeechDataset, collate, find_utterances
from mynah.utility.acoustic.features import statistics_name
from mynah.utility.acoustic.figures import ObjectivePictures
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.acoustic.teacher import read_teacher, restore_teacher
from mynah.utility.acoustic.trunk import OBJECTIVE, STATISTICS, without_objective
from mynah.utility.audio.corpus import SpeechDataset, Utterance, split_validation
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.load import from_plain, to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, load_weights, read_checkpoint, select_weights
from mynah.utility.experiments.folder import Experiment
from mynah.utility.experiments.shipped import describe_source
from mynah.utility.nn.size import describe_size
from mynah.utility.training.identity import dataset_fingerprint, flatten
from mynah.utility.training.loaders import BadFileLog
from mynah.utility.training.optimization import decay_groups
from mynah.utility.training.pretraining import PretrainingModule

TEACHER = f"{OBJECTIVE}teacher."
FIT_STREAM = 2
"""Sets the order in which utterances are offered to `Objective.fit` apart from other random choices."""

log = logging.getLogger("mynah")


def build_acoustic_pretraining(
    name: str, model_class: type[AcousticModel], config: AcousticPretrainConfig, experiment: Experiment
) -> "AcousticPretraining":
    """What `build_pretraining` of the acoustic upstreams returns: the model of `config`, with its teacher if any.

    Settles the keys that `config.resolved_keys()` names. Raises UserError where `init` cannot be followed.
    """
    weights: dict[str, Tensor] = {}
    if experiment.resume_from is not None:
        restore_teacher(config, read_checkpoint(experiment.resume_from, "pretrain")[METADATA], experiment.resume_from)
    elif config.init.clusters:
        config.objective.clusters.teacher, weights = read_teacher(config.init.clusters, name)
    elif config.objective.name == "clusters" and config.objective.clusters.teacher is not None:
        raise UserError(
            "objective.clusters.teacher: is found by init.clusters=CKPT:LAYER; give that, and leave this out"
        )
    model = model_class(config)
    if weights:
        load_weights(model.objective.teacher.trunk, weights, config.init.clusters)
    return AcousticPretraining(name, model, config, experiment)


class AcousticPretraining(PretrainingModule):
    """Trains `model` to predict, as its objective says, what is masked of the corpora of `config`."""

    def __init__(self, name: str, model: AcousticModel, config: AcousticPretrainConfig, experiment: Experiment):
        super().__init__(config, experiment)
        self.name, self.model, self.upstream_name = name, model, name
        self.fits = {"trunk": self.is_new_run, "objective": self.is_new_run}
        """Which parts of the model learn from the corpus before the first step."""

    def prepare(self) -> None:
        """Find the utterances, hold some out, and let the model of a new run measure the corpus.

        Raises UserError where the corpora cannot be used.
        """
        datarc = self.config.datarc
        utterances = find_utterances(datarc, self.model.positions, self.skipped)
        self.train_utterances, self.validation_items = split_validation(
            utterances, datarc.valid_fraction, datarc.split_seed
        )
        self.bad_files = BadFileLog(self.skipped, len(utterances), datarc.max_bad_fraction)
        hours = sum(utterance.samples for utterance in utterances) / SAMPLE_RATE / 3600
        names = ", ".join(datarc.file_path)
        log.info("%s: %d utterances, %.2f h; %d held out", names, len(utterances), hours, len(self.validation_items))
        if any(self.fits.values()):
            self.model.fit(self._waveforms, **self.fits)

    def _waveforms(self) -> Iterator[Tensor]:
        """Crops of training utterances in an order that the seed decides, without those that cannot be read."""
        speech = self._dataset(self.train_utterances)
        for index in np.random.default_rng([self.seed, FIT_STREAM]).permutation(len(speech)).tolist():
            signal = speech[(0, index)]["signal"]
            if signal is not None:
                yield signal

    def setup(self, stage: str) -> None:
        """Every process begins with what the first has learned: another machine may round otherwise."""
        if any(self.fits.values()) and self.trainer.world_size > 1:
            own = dict(self.model.named_buffers())
            learned = self.trainer.strategy.broadcast({name: buffer.cpu() for name, buffer in own.items()})
            for name, buffer in own.items():
                buffer.copy_(learned[name])

    def on_fit_start(self) -> None:
        if self.config.compile:
            self.model.encoder.compile()

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
        speech = SpeechDataset(utterances, datarc.max_timestep, self.seed, datarc.trim_silence, sources=False)
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
        sums = {"count": count, "loss": objective.loss(predictions, targets, count).double() * count}
        for name, values in objective.metrics(predictions, targets).items():
            sums[name] = values.sum(0, dtype=torch.float64)
        for name, value in sums.items():
            self.val_sums[name] = self.val_sums.get(name, 0) + value.double().flatten()

    def on_validation_epoch_end(self) -> None:
        """val_loss and val_ the metrics: over all masked positions held out, whatever their batches."""
        sizes = {"count": 1, "loss": 1, **self.model.objective.metric_sizes()}
        own = [  # a process may have had no batch
            self.val_sums.get(name, torch.zeros(size, dtype=torch.float64, device=self.device))
            for name, size in sizes.items()
        ]
        sums = self.trainer.strategy.reduce(torch.cat(own), reduce_op="sum").cpu().split(list(sizes.values()))
        count, loss, *metrics = sums
        if not count:
            raise UserError(
                f"none of the {len(self.validation_items)} held-out utterances could be read; see {self.skipped}"
            )
        val_loss = (loss / count).item()
        self.report_val_loss(val_loss)
        means = {name: metric / count for name, metric in zip(self.model.objective.METRICS, metrics, strict=True)}
        for name, value in self.model.objective.summary(val_loss, means).items():
            self.log(f"val_{name}", value, prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        plain = to_plain(self.config)
        checkpoint[METADATA] = self.checkpoint_metadata(
            self.name, {key: plain[key] for key in AcousticConfig.model_fields}
        )

    def init_from(self, checkpoint: dict[str, Any], source: str) -> None:
        """Take the weights alone of another run (--init-from), those of its objective only if it is the same.

        Of another objective's targets the corpus' statistics are left too, and this objective's are measured. Where
        features are made otherwise, all statistics are measured anew, and what was learned of features is too.
        """
        weights = select_weights(checkpoint["state_dict"], "model.")
        theirs = checkpoint[METADATA]["config"].get("objective")
        own = self.model.state_dict()
        same = theirs is not None and self._has_this_objective(theirs, source)
        same = same and all(_equal(weights.get(name), own[name]) for name in own if name.startswith(TEACHER))
        if changes := self._changes_of_features(checkpoint[METADATA]["config"]):
            log.warning(
                "%s: its features are made otherwise (%s): statistics of the corpus are measured anew",
                *(source, ", ".join(changes)),
            )
            same = same and not self.model.objective.FIT_OPTIONS
            weights = {name: value for name, value in weights.items() if not name.startswith(STATISTICS)}
            weights |= {name: value for name, value in own.items() if name.startswith(STATISTICS)}
        else:
            self.model.features.measured(*_names_of_statistics(weights))
        if not same:
            unmeasured = tuple(f"{STATISTICS}{name}." for name in self._targets_of(self.model.features.declared))
            fresh = {name: value for name, value in own.items() if name.startswith((OBJECTIVE, *unmeasured))}
            weights = {**without_objective(weights, own), **fresh}
        load_weights(self.model, weights, source)
        self.fits = {"trunk": bool(self.model.features.declared), "objective": not same}
        what = "" if same else ", which has no objective" if theirs is None else ", its objective aside, another one"
        where = describe_source(source, self.name)
        log.info("initialized from %s (step %d)%s", where, checkpoint[METADATA]["step"], what)

    def _changes_of_features(self, plain: dict[str, Any]) -> list[str]:
        """The keys of how features are made that a checkpoint's configuration says otherwise."""
        own = dict(flatten(to_plain(self.config.features), "features"))
        theirs = dict(flatten(plain["features"], "features"))
        made_by = ("features.front_end", "features.level_db", f"features.{self.config.features.front_end}.")
        return [key for key in own if key.startswith(made_by) and key in theirs and own[key] != theirs[key]]

    def _targets_of(self, names: Iterable[str]) -> list[str]:
        """Of these features those that are targets alone."""
        return [name for name in names if name != statistics_name(self.config.features.input)]

    def _has_this_objective(self, plain: dict[str, Any], source: str) -> bool:
        """Whether a checkpoint's section `objective` says the same as the run's own, but for what it was fit by."""
        own = self.config.objective
        if plain.get("name") != own.name:
            return False
        section = getattr(own, own.name)
        theirs = from_plain(type(section), plain[own.name], source)
        fit_by = {key: getattr(section, key) for key in self.model.objective.FIT_OPTIONS}
        return theirs.replace(**fit_by) == section


def _equal(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and torch.equal(one.float(), other.float())


def _names_of_statistics(weights: Iterable[str]) -> set[str]:
    """The features of whose statistics these weights tell."""
    return {name.removeprefix(STATISTICS).partition(".")[0] for name in weights if name.startswith(STATISTICS)}
