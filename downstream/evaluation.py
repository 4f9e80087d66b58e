"""Records of a split, over one or several processes, and the metrics and report that the expert makes of them."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer

from mynah.downstream.interfaces import DownstreamExpert
from mynah.utility.errors import UserError
from mynah.utility.experiments.folder import write_json

log = logging.getLogger("mynah")


class SplitEvaluation:
    """One pass over a split: each process appends to `records`, then `finish` computes the metrics of all of them."""

    def __init__(self, expert: DownstreamExpert, split: str, skipped_files: Path):
        self.expert, self.split, self.skipped_files = expert, split, skipped_files
        self.records: dict[str, list] = {}

    def finish(self, trainer: Trainer) -> dict[str, float]:
        """The metrics, the same in every process. Raises UserError where nothing could be read."""
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            dist.all_gather_object(gathered, self.records)
            keys = {key for records in gathered for key in records}
            self.records = {key: [value for each in gathered for value in each.get(key, [])] for key in sorted(keys)}
        if not self.records:
            raise UserError(f"nothing of the {self.split} split could be read; see {self.skipped_files}")
        metrics = on_first_process(trainer, lambda: self.expert.log_records(self.split, self.records))
        self._check_monitor_of(metrics)
        if not math.isfinite(metrics[self.expert.monitor]):
            log.warning("%s of the %s split is not finite", self.expert.monitor, self.split)
        return metrics

    def check_monitor(self) -> None:
        """Raise UserError where the metrics of the records so far lack the monitor; silent where they have none."""
        logging.disable(logging.WARNING)  # what is said of metrics of two items says nothing
        try:
            metrics = self.expert.log_records(self.split, self.records)
        except Exception as error:  # two items may be too few for a metric
            log.debug("the metrics of the first items: %s", error)
            return
        finally:
            logging.disable(logging.NOTSET)
        self._check_monitor_of(metrics)

    def _check_monitor_of(self, metrics: dict[str, float]) -> None:
        if self.expert.monitor not in metrics:
            raise UserError(
                f"{type(self.expert).__module__}: its monitor is '{self.expert.monitor}', but log_records returned "
                f"only {', '.join(metrics) or 'nothing'}; name one of these (downstream/README.md)"
            )

    def write_report(self, metrics: dict[str, float], folder: Path) -> None:
        """metrics.json and the expert's own report, in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(metrics, folder / "metrics.json")
        for path in self.expert.write_report(self.split, self.records, folder):
            log.info("wrote %s", path)


def on_first_process(trainer: Trainer, compute: Callable[[], Any]) -> Any:
    """What `compute` returns or raises, in all processes; only the first one computes it."""
    if trainer.world_size == 1:
        return compute()
    outcome: list[Any] = [None, None]
    failure = None
    if trainer.is_global_zero:
        try:
            outcome[0] = compute()
        except Exception as error:  # the other processes wait for the outcome, whatever it is
            failure, outcome[1] = error, f"the first process failed: {error}"
    dist.broadcast_object_list(outcome, src=0)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        raise UserError(outcome[1])
    return outcome[0]
