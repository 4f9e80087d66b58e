"""Callbacks of Lightning's Trainer: saving, stopping on signals, progress, throughput."""

import logging
import math
import signal
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, TQDMProgressBar
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import (
    BEST,
    LAST,
    METADATA,
    PREVIOUS,
    load_checkpoint,
    save_atomically,
)
from mynah.utility.experiments.integrity import why_damaged

log = logging.getLogger("mynah")

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, written by `save_atomically` and read by `load_checkpoint`.

    Where last.ckpt is replaced by a later state, the earlier one becomes previous.ckpt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step_of_last: int | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path, step, previous = Path(path), checkpoint["global_step"], None
        if path.name == LAST:
            if self.step_of_last is None:  # the file is of an earlier part of the run
                previous = None if why_damaged(path) else path.with_name(PREVIOUS)
            elif self.step_of_last != step:
                previous = path.with_name(PREVIOUS)
            self.step_of_last = step
        save_atomically(checkpoint, path, previous)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: Any = True) -> dict[str, Any]:
        return load_checkpoint(Path(path))


class SaveStates(Checkpoint):
    """Saves last.ckpt every so many optimizer steps, after every validation and at the end; best.ckpt; copies.

    Only between optimizer steps, where no half-accumulated gradient would be lost. Where a validation is due it
    saves after that, so that a resumed run neither repeats nor skips one. last.ckpt is the commit point: it is saved
    after everything else, and its state says which score and step best.ckpt has. A run that is killed between the
    two repeats the validation, and with it the same best.ckpt.

    monitor, mode: the entry of `module.validation_metrics` that chooses best.ckpt, and whether its "min" or "max" is
    best. A score that is not finite is never the best.
    """

    def __init__(
        self, folder: Path, save_every_n_steps: int, keep_every_n_steps: int | None, monitor: str, mode: str
    ):
        self.folder = folder
        self.save_every_n_steps, self.keep_every_n_steps = save_every_n_steps, keep_every_n_steps
        self.monitor, self.mode = monitor, mode
        self.best: dict[str, Any] | None = None
        """{"step", "score", "metrics"} of best.ckpt."""
        self.begin_best_anew = False
        """Set where a continued run is validated on other data than before."""

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if self.best is not None and not self.begin_best_anew and not (self.folder / BEST).is_file():
            log.warning("%s is missing; the next validation's checkpoint takes its place", self.folder / BEST)
            self.begin_best_anew = True
        elif self.best is not None and not self.begin_best_anew and self._step_of_best() != self.best["step"]:
            log.warning(
                "%s is not of step %d, at which this run was at its best; the next validation's checkpoint takes its "
                "place",
                *(self.folder / BEST, self.best["step"]),
            )
            self.begin_best_anew = True
        if self.begin_best_anew:
            self.best = None

    def _step_of_best(self) -> int | None:
        """None where the file is damaged."""
        try:
            return load_checkpoint(self.folder / BEST)[METADATA]["step"]
        except UserError:
            return None

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if not _between_steps(trainer) or _validation_due(trainer):
            return
        self._keep(trainer)
        if step % self.save_every_n_steps == 0:
            trainer.save_checkpoint(self.folder / LAST)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._save_if_best(trainer, module.validation_metrics)
        self._keep(trainer)
        trainer.save_checkpoint(self.folder / LAST)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / LAST)

    def add_final_validation(self, trainer: Trainer, metrics: dict[str, float], metadata: dict[str, Any]) -> None:
        """Let a validation after the end of `fit` count too: where it is the best, last.ckpt becomes best.ckpt.

        metadata: what the checkpoints' own says of that validation.
        """
        if not self._is_best(metrics):
            return
        self._note_best(trainer, metrics)
        if trainer.is_global_zero:
            checkpoint = load_checkpoint(self.folder / LAST)
            checkpoint["callbacks"][self.state_key] = self.state_dict()
            checkpoint[METADATA] |= metadata
            for name in (BEST, LAST):
                save_atomically(checkpoint, self.folder / name)

    def _save_if_best(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if self._is_best(metrics):
            self._note_best(trainer, metrics)
            trainer.save_checkpoint(self.folder / BEST)

    def _is_best(self, metrics: dict[str, float]) -> bool:
        score = metrics.get(self.monitor)
        if score is None or not math.isfinite(score):
            return False
        better = min if self.mode == "min" else max
        return self.best is None or (score != self.best["score"] and better(score, self.best["score"]) == score)

    def _note_best(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.best = {"step": trainer.global_step, "score": metrics[self.monitor], "metrics": dict(metrics)}

    def _keep(self, trainer: Trainer) -> None:
        if self.keep_every_n_steps and trainer.global_step % self.keep_every_n_steps == 0:
            trainer.save_checkpoint(self.folder / f"step-{trainer.global_step}.ckpt")


class Progress(TQDMProgressBar):
    """Optimizer steps of all steps of the run, rate, time left, losses; in a log file a line now and then.

    On standard error, so that standard output is left to results (--json).
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 100)

    def init_train_tqdm(self) -> Any:
        with redirect_stdout(sys.stderr):
            return super().init_train_tqdm()

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """A run is one stream: its bar goes from the step where it starts or resumes to its last one."""
        bar = self.train_progress_bar
        bar.total, bar.initial, bar.n = trainer.max_steps, trainer.global_step, trainer.global_step
        bar.set_description("steps")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if _between_steps(trainer) and self._should_update(step, trainer.max_steps):
            self.train_progress_bar.n = step
            self.train_progress_bar.refresh()
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, module))

    def init_validation_tqdm(self) -> Any:
        with redirect_stdout(sys.stderr):
            return super().init_validation_tqdm()

    def init_test_tqdm(self) -> Any:
        with redirect_stdout(sys.stderr):
            return super().init_test_tqdm()

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, module)
        metrics.pop("v_num", None)
        return metrics


class StopOnSignal(Callback):
    """SIGINT and SIGTERM end the run after the optimizer step under way, saved. A second SIGINT ends it at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.previous = {number: signal.signal(number, self._note) for number in INTERRUPTS}

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        if not _between_steps(trainer) or _validation_due(trainer):
            return
        self._stop_if_asked(trainer)
        if trainer.should_stop:  # also by trainer.max_time
            # Lightning would validate before it ends, off schedule, in the time that is left to save.
            trainer.limit_val_batches = 0

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def _stop_if_asked(self, trainer: Trainer) -> None:
        asked = self.received is not None
        if trainer.world_size > 1:  # all processes stop after the same step
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked and trainer.global_step < trainer.max_steps:
            trainer.should_stop = True


class Throughput(Callback):
    """Logs audio_seconds_per_second or clips_per_second: input over wall time since the last log, of all processes.

    A batch says how much it holds under "audio_seconds" or "clips".
    """

    def __init__(self) -> None:
        self.amount, self.since = 0.0, time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.amount, self.since = 0.0, time.monotonic()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.amount, self.since = 0.0, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: dict[str, Any], batch_idx: int
    ) -> None:
        unit = "clips" if "clips" in batch else "audio_seconds"
        self.amount += batch[unit] * trainer.world_size
        if _between_steps(trainer) and trainer.global_step % trainer.log_every_n_steps == 0 and self.amount:
            module.log(f"{unit}_per_second", self.amount / (time.monotonic() - self.since))
            self.amount, self.since = 0.0, time.monotonic()


def _between_steps(trainer: Trainer) -> bool:
    """Whether the batch just trained on completed an optimizer step."""
    return (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0


def _validation_due(trainer: Trainer) -> bool:
    """Whether Lightning validates after the batch just trained on."""
    if not trainer.enable_validation or not sum(trainer.num_val_batches):
        return False
    return (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.val_check_batch == 0
