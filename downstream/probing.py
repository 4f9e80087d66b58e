"""Training and testing a task on an upstream, as a LightningModule."""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader

from mynah.downstream.features import Featurizer, UpstreamFeatures
from mynah.downstream.interfaces import DownstreamExpert, UpstreamInfo
from mynah.upstream.interfaces import Upstream
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.load import to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import CARD, make_card
from mynah.utility.experiments.folder import Experiment, write_json
from mynah.utility.training.loaders import BadFileLog, bad_items
from mynah.utility.training.module import TrainingModule
from mynah.utility.training.optimization import decay_groups

log = logging.getLogger("mynah")

AMOUNTS: dict[str, Callable[[Sequence[Tensor]], dict[str, float]]] = {
    "speech": lambda signals: {"audio_seconds": sum(len(signal) for signal in signals) / SAMPLE_RATE},
    "video": lambda signals: {"clips": len(signals)},
}
"""How much a batch holds, for the rate of training."""


class Probing(TrainingModule):
    """An upstream, a featurizer and a task's expert, trained together; the upstream only with `fine_tune`."""

    def __init__(
        self,
        upstream: Upstream,
        expert: DownstreamExpert,
        config: Any,
        experiment: Experiment,
        *,
        task: str,
        fine_tune: bool,
    ):
        super().__init__()
        self.seed, self.config, self.experiment = config.seed, config, experiment
        self.task, self.fine_tune, self.expert = task, fine_tune, expert
        featurizer = Featurizer(upstream.num_hidden_states, config.features)
        self.features = UpstreamFeatures(upstream, featurizer, fine_tune, config.features.cache_gib)
        self._collate = partial(collate, modality=expert.modality)
        self.metrics: dict[str, dict[str, float]] = {}
        self.test_split = "test"
        self.trained = False
        """Whether there has been a step in this leg of the run."""
        self.bad_files = BadFileLog(experiment.skipped_files, 0, getattr(config.datarc, "max_bad_fraction", 0.05))

    @property
    def monitor(self) -> str:
        """The logged name of the metric that selects the best checkpoint."""
        return f"dev_{self.expert.select_by}"

    @property
    def report_folder(self) -> Path:
        """Where the report on `test_split` goes; that of a control does not replace it."""
        return self.experiment.folder / (self.test_split + ("_zeroed" if self.config.features.zeroed else ""))

    # -- data ------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        lengths = (self.expert.get_dataset(split).lengths for split in ("train", "dev"))
        self.features.plan(chain.from_iterable(lengths))

    def on_train_batch_end(self, *_: Any) -> None:
        self.trained = True

    def on_fit_end(self) -> None:
        self.features.forget()  # the test reads every signal once

    def train_dataloader(self) -> DataLoader:
        dataset = self._dataset("train")
        return self.make_training_loader(dataset, dataset.lengths, self._collate)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("dev")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.test_split)

    def _evaluation_loader(self, split: str) -> DataLoader:
        dataset = self._dataset(split)
        return self.make_evaluation_loader(dataset, dataset.lengths, self._collate)

    def _dataset(self, split: str) -> Any:
        dataset = self.expert.get_dataset(split)
        self.bad_files.num_files += len(dataset)
        return dataset

    def transfer_batch_to_device(self, batch: Any, device: torch.device, index: int) -> Any:
        return batch  # the upstream takes its signals to its own device

    # -- steps -----------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = self._loss("train", batch, {})
        self.guard(loss, batch["names"])
        self.log("loss", loss, prog_bar=True, batch_size=len(batch["names"]))
        if self.trainer.world_size > 1:  # processes may hold unlike shares of a batch; see mean_over_processes
            count = torch.tensor(len(batch["names"]), device=self.device)
            loss = loss * count / self.mean_over_processes(count)
        return loss

    def on_validation_epoch_start(self) -> None:
        self.records: dict[str, list] = {}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate("dev", batch)

    def on_validation_epoch_end(self) -> None:
        metrics = self._finish("dev")
        for name, value in metrics.items():
            self.log(f"dev_{name}", value, prog_bar=name == self.expert.select_by)

    def on_test_epoch_start(self) -> None:
        self.records = {}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(self.test_split, batch)

    def on_test_epoch_end(self) -> None:
        metrics = self._finish(self.test_split)
        self.log_dict({f"{self.test_split}_{name}": value for name, value in metrics.items()})
        if self.trainer.is_global_zero:
            folder = self.report_folder
            folder.mkdir(parents=True, exist_ok=True)
            write_json(metrics, folder / "metrics.json")
            for path in self.expert.write_report(self.test_split, self.records, folder):
                log.info("wrote %s", path)

    @torch.no_grad()
    def predict_signal(self, signal: Tensor, picture: Path | None = None) -> dict[str, Any]:
        """The task's prediction for a waveform or clip, drawn into the file `picture` if one is given."""
        self.eval()
        features, lengths = self.features([signal], [None])
        if picture is not None:
            self.expert.draw_prediction(features, lengths, signal, picture)
        [result] = self.expert.predict(features, lengths)
        return result

    def _loss(self, split: str, batch: dict[str, Any], records: dict[str, list]) -> Tensor:
        features, lengths = self.features(batch["signals"], batch["keys"])
        return self.expert(split, features, lengths, batch["labels"], records, batch["names"])

    def _evaluate(self, split: str, batch: dict[str, Any]) -> None:
        self.bad_files.note(batch["bad"])
        if batch["names"]:
            self._loss(split, batch, self.records)

    def _finish(self, split: str) -> dict[str, float]:
        """Metrics over the records of all processes."""
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            dist.all_gather_object(gathered, self.records)
            keys = {key for records in gathered for key in records}
            self.records = {key: [value for each in gathered for value in each.get(key, [])] for key in sorted(keys)}
        if not self.records:
            raise UserError(f"nothing of the {split} split could be read; see {self.bad_files.path}")
        self.metrics[split] = self._on_first_process(lambda: self.expert.log_records(split, self.records))
        if not math.isfinite(self.metrics[split][self.expert.select_by]):
            log.warning("%s of the %s split is not finite", self.expert.select_by, split)
        return self.metrics[split]

    def _on_first_process(self, compute: Callable[[], Any]) -> Any:
        """What `compute` returns or raises, in all processes; only the first one computes it."""
        if self.trainer.world_size == 1:
            return compute()
        outcome: list[Any] = [None, None]
        failure = None
        if self.trainer.is_global_zero:
            try:
                outcome[0] = compute()
            except Exception as error:  # or the others would wait for ever
                failure, outcome[1] = error, f"the first process failed: {error}"
        dist.broadcast_object_list(outcome, src=0)
        if failure is not None:
            raise failure
        if outcome[1] is not None:
            raise UserError(outcome[1])
        return outcome[0]

    # -- weights ---------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.config.optimizer
        groups = [
            *decay_groups(self.expert, optimizer.lr, optimizer.weight_decay),
            *decay_groups(self.features.featurizer, optimizer.lr, 0.0),
            *decay_groups(self.features.upstream, optimizer.upstream_lr, optimizer.weight_decay),
        ]
        return self.optimizers_for(groups, optimizer, self.config.scheduler, self.config.trainer["max_steps"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        upstream = self.features.upstream
        checkpoint[CARD] = make_card(
            "downstream",
            upstream.name,
            upstream.build_arguments(),
            downstream=self.task,
            task_config=to_plain(self.config),
            task_state=self.expert.state(),
            fine_tune=self.fine_tune,
            step=self.global_step,
        )


def upstream_info(upstream: Upstream) -> UpstreamInfo:
    """What a task's expert is told of the upstream."""
    info = UpstreamInfo(
        name=upstream.name,
        modality=upstream.modality,
        feature_size=upstream.hidden_size,
        samples_per_position=upstream.get_downsample_rates(),
        num_hidden_states=upstream.num_hidden_states,
    )
    if upstream.modality == "speech":
        return info
    return dataclasses.replace(
        info,
        frames_per_clip=upstream.frames_per_clip,
        frame_size=upstream.frame_size,
        num_positions=upstream.num_positions,
        caption_decoder=upstream.caption_decoder(),
    )


def collate(items: Sequence[dict[str, Any]], modality: str = "speech") -> dict[str, Any]:
    """Items -> {"signals", "labels", "names", "keys", "bad", and "audio_seconds" or "clips"}.

    Where not one of them could be read, no names and "bad" alone. "keys" names the signals that are the
    same in every pass ("fixed" items), for the features cache.
    """
    readable = [item for item in items if item["signal"] is not None]
    if not readable:
        return {"names": [], "bad": bad_items(items)}
    return {
        "signals": [item["signal"] for item in readable],
        "labels": [item["label"] for item in readable],
        "names": [item["name"] for item in readable],
        "keys": [item["name"] if item.get("fixed") else None for item in readable],
        "bad": bad_items(items),
        **AMOUNTS[modality]([item["signal"] for item in readable]),
    }
