"""Base of all training modules: reproducible steps, guarded losses, gradient clipping."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA
from mynah.utility.training.config import OptimizerConfig, SchedulerConfig
from mynah.utility.training.loaders import BadFileLog, IsKnown, evaluation_loader, training_loader
from mynah.utility.training.optimization import build_optimizer, build_schedule

SCHEDULE_TYPES = {"_step_count": int, "last_epoch": int, "base_lrs": list}
"""In the state of every schedule of torch."""

log = logging.getLogger("mynah")


class TrainingModule(LightningModule):
    """A LightningModule one step of which is a function of the seed and the step's number.

    A subclass sets `config` (with a section `dataloader`), `seed` and `bad_files`, and reports each batch's loss to
    `track_loss`.
    """

    config: Any
    seed: int
    bad_files: BadFileLog
    upstream_name: str
    pins_batches = True
    """Whether batches are tensors that go to the device as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.validation_metrics: dict[str, float] = {}
        """What the last validation measured, by name: the same in every process."""
        self.identity: dict[str, Any] = {}
        """What `run_identity` says of the run."""
        self._losses: list[Tensor] = []
        self._names: list[str] = []
        self._position = 0

    def data_fingerprints(self) -> dict[str, str]:
        """`fingerprint` of the items by split, for the comparison of a resumed run; a subclass says which it has."""
        return {}

    def run_metadata(self) -> dict[str, Any]:
        """What every checkpoint says of its run beside the model."""
        return {"run": self.identity, "bad_files": sorted(self.bad_files.names)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The count of bad files goes on. Raises UserError for a schedule that has no place to go on from."""
        for schedule in checkpoint.get("lr_schedulers", []):
            own = schedule if isinstance(schedule, dict) else {}
            if any(type(own.get(key)) is not kind for key, kind in SCHEDULE_TYPES.items()):
                raise UserError(
                    "the checkpoint's state of the learning rate schedule is damaged; take an earlier one"
                )
        self.bad_files.names.update(checkpoint[METADATA].get("bad_files", []))

    @property
    def first_batch(self) -> int:
        """The position in the stream of batches that training starts from: 0, or where the run was left."""
        return self.trainer.global_step * self.trainer.accumulate_grad_batches

    @property
    def num_batches(self) -> int:
        """Batches of the whole run."""
        return self.trainer.max_steps * self.trainer.accumulate_grad_batches

    def make_training_loader(
        self, dataset: Dataset, lengths: Sequence[int], collate: Callable, is_known: IsKnown | None = None
    ) -> DataLoader:
        """Batches of `dataset`, whose items are of these lengths, from where the run stands to its end.

        is_known: says of a (pass, index) that its signal need not be read, see AskedBatches.
        """
        return training_loader(
            dataset,
            lengths,
            self.config.dataloader,
            collate,
            num_batches=self.num_batches,
            start=self.first_batch,
            seed=self.seed,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            pin=self.pins_batches,
            is_known=is_known,
        )

    def make_evaluation_loader(
        self, dataset: Dataset, lengths: Sequence[int], collate: Callable, is_known: IsKnown | None = None
    ) -> DataLoader:
        """Every item of `dataset` once, shared among the processes."""
        ranks = self.global_rank, self.trainer.world_size
        options = {"pin": self.pins_batches, "is_known": is_known}
        return evaluation_loader(dataset, lengths, self.config.dataloader, collate, *ranks, **options)

    def on_train_start(self) -> None:
        self._position = self.first_batch

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """What torch draws in the step (dropout, masks) becomes a function of the seed and the position.

        Lightning's `batch_idx` is not the position: it begins anew where a run is continued that had come to its end.
        """
        self.bad_files.note(batch["bad"], self._sum_over_processes)
        torch.manual_seed((self.seed * 1_000_003 + self._position) * 1009 + self.global_rank)
        self._position += 1

    def track_loss(self, loss: Tensor, names: list[str]) -> None:
        """Keep a batch's loss; it is checked before the weights change, without a synchronization here."""
        self._losses.append(loss.detach())
        self._names.extend(names)

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None, gradient_clip_algorithm: Any
    ) -> None:
        """Lightning's clipping, which also tells the norm before it was clipped, and stops before a loss or a norm
        that is not finite reaches the weights."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # Lightning leaves that to the step of a fused optimizer, which comes too late
        if gradient_clip_algorithm is not None and str(gradient_clip_algorithm) != "norm":
            self._check_finite()
            torch.nn.utils.clip_grad_value_(self.parameters(), gradient_clip_val)
            return
        norm = torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or math.inf)
        self._check_finite(norm if scaler is None else None)  # a scaler skips such a step itself
        self.log("gradient_norm", norm)

    def _check_finite(self, norm: Tensor | None = None) -> None:
        """Raise UserError for a loss of the step, or a norm of its gradient, that is not finite.

        All are asked for at once: a GPU is waited for only here.
        """
        losses, names, step = self._losses, self._names, self.global_step + 1
        self._losses, self._names = [], []
        asked = [*losses, *([] if norm is None else [norm])]
        values = torch.stack([value.float() for value in asked]).tolist() if asked else []
        held = "the weights were not changed by it and last.ckpt holds an earlier state"
        for loss in values[: len(losses)]:
            if not math.isfinite(loss):
                raise UserError(
                    f"the loss became {loss} at step {step}; {held}. The step's inputs: {', '.join(names)}. "
                    "Look at them, or lower optimizer.lr"
                )
        if values and not math.isfinite(values[-1]):
            raise UserError(f"the gradient's norm became {values[-1]} at step {step}; {held}. Lower optimizer.lr")

    def optimizers_for(
        self, groups: list[dict], optimizer: OptimizerConfig, scheduler: SchedulerConfig, max_steps: int
    ) -> dict[str, Any]:
        """What `configure_optimizers` returns for these parameter groups."""
        built = build_optimizer(optimizer.name, groups, tuple(optimizer.betas), optimizer.eps)
        steps = scheduler.num_training_steps or max_steps
        if 0 < max_steps <= scheduler.num_warmup_steps:
            log.warning(
                "the warm-up of %d steps (scheduler.num_warmup_steps) outlasts the run of %d: the learning rate does "
                "not reach optimizer.lr",
                *(scheduler.num_warmup_steps, max_steps),
            )
        schedule = build_schedule(built, scheduler.name, scheduler.count_warmup_steps(steps), steps)
        return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _sum_over_processes(self, count: int) -> int:
        if self.trainer.world_size == 1:
            return count
        total = torch.tensor(count, device=self.device)
        dist.all_reduce(total)
        return int(total)

    def mean_over_processes(self, count: Tensor) -> Tensor:
        """The mean of a count over the processes, () float32.

        Each process divides its summed loss by it, and the gradients are averaged: together that is the sum over all
        processes divided by the count of all, as one process with the whole batch would have it. The mean of
        the processes' own means would weigh a process with little to count more than one with much.
        """
        count = count.float()
        if self.trainer.world_size > 1:
            dist.all_reduce(count)
            count = count / self.trainer.world_size
        return count
