"""Lightning's Trainer, set up as every run of Mynah needs it."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from mynah.utility.errors import UserError
from mynah.utility.experiments.folder import Experiment
from mynah.utility.training.callbacks import AtomicCheckpointIO, Progress, SaveStates, StopOnSignal, Throughput
from mynah.utility.training.config import CheckpointConfig

log = logging.getLogger("mynah")

VAL_CHECK_INTERVAL = 1000
"""Batches between two validations, by default; rounded up to whole optimizer steps."""


def build_trainer(
    arguments: dict[str, Any],
    experiment: Experiment,
    checkpoint: CheckpointConfig,
    *,
    device: str = "auto",
    monitor: str,
    mode: str,
) -> Trainer:
    """A Trainer that writes to the experiment's folder and stops and resumes without losing a step.

    arguments: the `trainer` section. monitor and mode: the metric that chooses best.ckpt.
    """
    _quiet_lightning()
    accumulated = arguments.get("accumulate_grad_batches", 1)
    arguments = {"val_check_interval": -(-VAL_CHECK_INTERVAL // accumulated) * accumulated, **arguments}
    arguments.setdefault("accelerator", {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}[device])
    arguments.setdefault("devices", 1)  # Lightning would take every GPU, and make the batch that many times larger
    try:
        return Trainer(
            **arguments,
            enable_model_summary=False,
            default_root_dir=experiment.folder,
            logger=TensorBoardLogger(experiment.folder, name="", version="tensorboard"),
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            callbacks=[
                Throughput(),
                LearningRateMonitor("step"),
                *([Progress()] if arguments.get("enable_progress_bar", True) else []),
                ModelCheckpoint(
                    experiment.checkpoints,
                    filename="best",
                    monitor=monitor,
                    mode=mode,
                    save_top_k=1,
                    enable_version_counter=False,
                    auto_insert_metric_name=False,
                ),
                StopOnSignal(),
                SaveStates(experiment.checkpoints, checkpoint.save_every_n_steps, checkpoint.keep_every_n_steps),
            ],
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise UserError(f"trainer: Lightning refuses these settings: {error}") from error


def _quiet_lightning() -> None:
    """Keep Lightning's errors and warnings, not its advertisements and what does not hold here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*your dataloader is not resumable.*",  # it starts at the right position by itself
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*in eval mode at the start of training.*",  # the frozen upstream, on purpose
        ".*which utilizes too many resources.*",
        ".*Total length of `list` across ranks is zero.*",  # nothing is held out
        ".*use `self.log\\('(val|dev|test|train)_.*sync_dist=True.*",  # it is the same in every process
    ):
        warnings.filterwarnings("ignore", message)


@contextmanager
def interruptions_reported(message: Callable[[], str]) -> Iterator[None]:
    """Where Ctrl-C ends what is inside at once, a warning with this message says how to go on."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as interruption:  # Lightning turns the latter into the former
        log.warning("%s", message())
        raise KeyboardInterrupt from interruption


def how_to_continue(experiment: Experiment, resume_command: str) -> str:
    """What is saved of an interrupted run, and the command for it."""
    if experiment.last.is_file():
        return f"interrupted; the state is saved in {experiment.last}. To continue:\n  {resume_command}"
    return "interrupted before anything was saved; give the same command again, with -a"


def fit(trainer: Trainer, module: LightningModule, experiment: Experiment, resume_command: str) -> bool:
    """Train to the end, or until a signal or trainer.max_time; returns whether the end was reached.

    If it was not, a warning says where the state is saved and which command continues the run.
    """
    with interruptions_reported(lambda: how_to_continue(experiment, resume_command)):
        trainer.fit(module, ckpt_path=experiment.resume_from, weights_only=True)
    finished = trainer.global_step >= trainer.max_steps
    if not finished:
        log.warning(
            "stopped at step %d of %d; the state is saved in %s. To continue:\n  %s",
            trainer.global_step,
            trainer.max_steps,
            experiment.last,
            resume_command,
        )
    return finished
