"""Training and testing of a task, as a LightningModule."""

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mynah.downstream.build import Task
from mynah.downstream.caching import open_cache
from mynah.downstream.evaluation import SplitEvaluation
from mynah.downstream.feature_cache import FeatureCache
from mynah.downstream.feature_items import FeatureItems
from mynah.downstream.interfaces import SPLITS
from mynah.downstream.model import check_upstream
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.load import to_plain
from mynah.utility.errors import UserError, is_lack_of_memory
from mynah.utility.experiments.checkpoint import METADATA, make_metadata
from mynah.utility.training.identity import dataset_fingerprint
from mynah.utility.training.loaders import BadFileLog, IsKnown, bad_items
from mynah.utility.training.module import TrainingModule
from mynah.utility.training.optimization import decay_groups

BATCH_SIZES: dict[str, Callable[[Sequence[int]], dict[str, float]]] = {
    "speech": lambda lengths: {"audio_seconds": sum(lengths) / SAMPLE_RATE},
    "video": lambda lengths: {"clips": len(lengths)},
}
"""Modality -> how much input a batch holds, for the throughput."""


class DownstreamModule(TrainingModule):
    """A task's model with its data, optimizer, validation and test."""

    pins_batches = False  # signals are padded first

    def __init__(self, task: Task):
        super().__init__()
        self.task, self.config, self.seed = task.name, task.config, task.config.seed
        self.origin, self.upstream_name = task.origin, task.model.features.upstream.name
        self.experiment = task.experiment
        # The parts of the model, under its names for them: the weights in a checkpoint are called as in the model.
        self.features, self.expert = task.model.features, task.model.expert
        self._collate = partial(collate, modality=self.expert.modality)
        self.metrics: dict[str, dict[str, float]] = {}
        """Of each split that has been evaluated."""
        self.test_split = "test"
        self.report_suffix = ""
        """Sets the report of an evaluation apart that is not the run's own."""
        self.steps_done = 0
        """Optimizer steps at the end of training."""
        self.trained = False
        """Whether this process has trained for at least one batch."""
        max_bad_fraction = getattr(self.config.datarc, "max_bad_fraction", 0.05)
        self.bad_files = BadFileLog(task.experiment.skipped_files, 0, max_bad_fraction)

    @property
    def monitor(self) -> str:
        """The logged name of the metric that selects the best checkpoint."""
        return f"dev_{self.expert.monitor}"

    @property
    def report_folder(self) -> Path:
        """Where the report on `test_split` goes; those of controls and of other data do not replace it."""
        zeroed = "_zeroed" if self.config.features.zeroed else ""
        return self.experiment.folder / f"{self.test_split}{zeroed}{self.report_suffix}"

    # -- data ------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        self._open_cache(self._training_items(), "dev")
        self._try_expert()

    def _open_cache(self, training: FeatureItems | None, *others: str) -> None:
        """Of the features of training and of the other splits, on disk also of the one to be tested."""
        settings = self.config.features
        splits = dict.fromkeys([*others, *([self.test_split] if settings.cache == "disk" else [])])
        items = [self._evaluation_items(split) for split in splits]
        about = {"precision": str(self.trainer.precision), "origin": self.origin}
        self.features.cache = open_cache(self.features, settings, training, items, **about)

    @torch.no_grad()
    def _try_expert(self) -> None:
        """Run two items of dev through the task, so that what breaks its contract shows before training.

        Raises UserError. What fails in `log_records` alone is left to the first validation: two items may be too few.
        """
        dataset = self.expert.get_dataset("dev")
        items = [dataset[(0, index)] for index in range(min(2, len(dataset)))]
        batch = self._collate(items)
        if not batch["names"]:
            return
        evaluation = SplitEvaluation(self.expert, "dev", self.bad_files.path)
        with torch.random.fork_rng():
            self.eval()
            try:
                self._loss("dev", {**batch, "keys": [None] * len(batch["names"])}, evaluation.records)
            except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError) as error:
                if is_lack_of_memory(error):
                    raise
                check_upstream(self.features.upstream, items[0]["signal"])  # whose fault it is then
                place = traceback.extract_tb(error.__traceback__)[-1]
                raise UserError(
                    f"{type(self.expert).__module__}: forward failed on {len(batch['names'])} items of dev: "
                    f"{type(error).__name__}: {error} ({place.filename}:{place.lineno}). It is given features "
                    f"(B, N, {self.expert.upstream.feature_size}), lengths (B,), and lists of labels and names "
                    "(downstream/README.md)"
                ) from error
            self.train()
        if self.trainer.world_size == 1:
            evaluation.check_monitor()

    def on_fit_end(self) -> None:
        self.features.cache.flush()
        if self.config.features.cache == "memory":
            self.features.cache = FeatureCache()  # the test reads every signal once

    def data_fingerprints(self) -> dict[str, str]:
        """Of the items of every split."""
        return {split: dataset_fingerprint(self.expert.get_dataset(split)) for split in SPLITS}

    def train_dataloader(self) -> DataLoader:
        items = self._training_items()
        return self.make_training_loader(items, items.lengths, self._collate, self._is_known(items))

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("dev")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.test_split)

    def _evaluation_loader(self, split: str) -> DataLoader:
        items = self._evaluation_items(split)
        return self.make_evaluation_loader(items, items.lengths, self._collate, self._is_known(items))

    def _training_items(self) -> FeatureItems:
        return FeatureItems(self.expert.get_dataset("train"), self.config.features.windows)

    def _evaluation_items(self, split: str) -> FeatureItems:
        return FeatureItems(self.expert.get_dataset(split), repeats=1)  # which are those of pass 0 every time

    def _is_known(self, items: FeatureItems) -> IsKnown:
        self.bad_files.num_files += len(items)
        return lambda key: items.is_known(key, self.features.cache)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        return batch  # the upstream takes its signals to its own device

    def _loss(self, split: str, batch: dict[str, Any], records: dict[str, list]) -> Tensor:
        """The expert's loss of a batch, () float; the expert appends to `records`."""
        features, lengths = self.features(batch["signals"], batch["keys"])
        loss = self.expert(split, features, lengths, batch["labels"], records, batch["names"])
        where = f"{type(self.expert).__module__}: forward"
        if not isinstance(loss, Tensor) or loss.dim():
            given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise UserError(f"{where} returned {given}; expected the mean loss of the batch, a scalar tensor")
        if len({len(values) for values in records.values()}) > 1:
            lengths_of = ", ".join(f"{key} {len(values)}" for key, values in records.items())
            raise UserError(f"{where} appended records of unequal lengths ({lengths_of}); expected a value an item")
        return loss

    # -- training --------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self._loss("train", batch, {})
        self.track_loss(loss, batch["names"])
        self.log("loss", loss, prog_bar=True, batch_size=len(batch["names"]))
        for name, value in self.expert.scalars.items():
            self.log(name, value, batch_size=len(batch["names"]))
        if (weights := self.features.featurizer.weights) is not None:
            for layer, weight in zip(self.features.featurizer.layers, weights.detach().softmax(0), strict=True):
                self.log(f"layer_weights/{layer}", weight)
        if self.trainer.world_size > 1:  # processes may hold unequal shares of a batch; see mean_over_processes
            count = torch.tensor(len(batch["names"]), device=self.device)
            loss = loss * count / self.mean_over_processes(count)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.trained = True

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.config.optimizer
        groups = [
            *decay_groups(self.expert, optimizer.lr, optimizer.weight_decay, "task"),
            *decay_groups(self.features.featurizer, optimizer.lr, 0.0, "layer_weights"),
            *decay_groups(self.features.upstream, optimizer.upstream_lr, optimizer.weight_decay, "upstream"),
        ]
        return self.optimizers_for(groups, optimizer, self.config.scheduler, self.config.trainer["max_steps"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        upstream = self.features.upstream
        checkpoint[METADATA] = make_metadata(
            "downstream",
            upstream.name,
            upstream.build_arguments(),
            downstream=self.task,
            task_config=to_plain(self.config),
            task_state=self.expert.state(),
            upstream_checkpoint=self.origin,
            **self.run_metadata(),
            fine_tune=self.features.fine_tune,
            step=self.global_step,
        )

    # -- evaluation ------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        self._begin("dev")

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self.validation_metrics = self._finish()
        for name, value in self.validation_metrics.items():
            self.log(f"dev_{name}", value, prog_bar=name == self.expert.monitor)

    def on_test_start(self) -> None:
        if self.config.features.cache == "disk" and not self.trained:  # else it is open since the training
            self._open_cache(None)

    def on_test_end(self) -> None:
        self.features.cache.flush()

    def on_test_epoch_start(self) -> None:
        self._begin(self.test_split)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        metrics = self._finish()
        self.log_dict({f"{self.test_split}_{name}": value for name, value in metrics.items()})
        if self.trainer.is_global_zero:
            self.evaluation.write_report(metrics, self.report_folder)

    def _begin(self, split: str) -> None:
        self.evaluation = SplitEvaluation(self.expert, split, self.bad_files.path)

    def _evaluate(self, batch: dict[str, Any]) -> None:
        self.bad_files.note(batch["bad"])
        if batch["names"]:
            self._loss(self.evaluation.split, batch, self.evaluation.records)

    def _finish(self) -> dict[str, float]:
        metrics = self.metrics[self.evaluation.split] = self.evaluation.finish(self.trainer)
        return metrics


def collate(items: Sequence[dict[str, Any]], modality: str = "speech") -> dict[str, Any]:
    """Items -> {"signals", "labels", "names", "keys", "bad", and "audio_seconds" or "clips"}.

    Where not one of them could be read, no names and "bad" alone. "keys" names the signals that come again, for the
    cache of features.
    """
    readable = [item for item in items if item["signal"] is not None]
    if not readable:
        return {"names": [], "bad": bad_items(items)}
    return {
        "signals": [item["signal"] for item in readable],
        "labels": [item["label"] for item in readable],
        "names": [item["name"] for item in readable],
        "keys": [item.get("key") for item in readable],
        "bad": bad_items(items),
        **BATCH_SIZES[modality]([item.get("length") or len(item["signal"]) for item in readable]),
    }
