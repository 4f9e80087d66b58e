"""Lightning's Trainer, set up as every run of Mynah needs it."""

import logging
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from mynah.utility.configuration.load import to_plain
from mynah.utility.errors import UserError, ignore_threads
from mynah.utility.experiments.checkpoint import METADATA, load_checkpoint
from mynah.utility.experiments.folder import Experiment
from mynah.utility.training.callbacks import AtomicCheckpointIO, Progress, SaveStates, StopOnSignal, Throughput
from mynah.utility.training.config import CheckpointConfig
from mynah.utility.training.identity import compare_identity, flatten, run_identity
from mynah.utility.training.pace import Pace

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
    shorter: str = "",
) -> Trainer:
    """A Trainer that writes to the experiment's folder and stops and resumes without losing a step.

    arguments: the `trainer` section. monitor and mode: the one of the module's `validation_metrics` that chooses
    best.ckpt. shorter: what to give for a shorter run, such as "-c small", where there is such a thing.
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
                StopOnSignal(),
                Pace(shorter),
                SaveStates(
                    experiment.checkpoints,
                    checkpoint.save_every_n_steps,
                    checkpoint.keep_every_n_steps,
                    monitor,
                    mode,
                ),
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
        ".*in eval mode at the start of training.*",  # the frozen upstream, on purpose
        ".*which utilizes too many resources.*",
        ".*Total length of `list` across ranks is zero.*",  # nothing is held out
        ".*use `self.log\\('(val|dev|test|train)_.*sync_dist=True.*",  # it is the same in every process
    ):
        warnings.filterwarnings("ignore", message)


def best_of(trainer: Trainer) -> dict[str, Any] | None:
    """{"step", "score", "metrics"} of best.ckpt, as the run knows it; None where nothing was validated."""
    return states_of(trainer).best


def states_of(trainer: Trainer) -> SaveStates:
    """The callback that saves the run's checkpoints."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, SaveStates))


def check_identity(trainer: Trainer, module: Any, experiment: Experiment, allow_changes: bool) -> None:
    """Note in `module` what makes its run, and compare that with the checkpoint that is resumed, if any.

    Raises UserError where the run would not be the same, unless `allow_changes`, and for fewer steps than are done.
    """
    module.identity = run_identity(module.config, module.data_fingerprints(), trainer.world_size)
    source = experiment.resume_from
    if source is None:
        return
    metadata = load_checkpoint(source)[METADATA]
    if trainer.max_steps < metadata["step"]:
        raise UserError(
            f"trainer.max_steps={trainer.max_steps}: {source} is at step {metadata['step']} already; give at least "
            "that, or go on from an earlier checkpoint with -e"
        )
    earlier = metadata.get("run")
    if earlier and compare_identity(module.identity, earlier, source, allow_changes):
        states_of(trainer).begin_best_anew = True


class ReportedInterruptError(KeyboardInterrupt):
    """An interruption of which a warning has told already."""


@contextmanager
def interruptions_reported(message: Callable[[], str], folder: Path | None = None) -> Iterator[None]:
    """What ends the run from outside, in a line with this message, which says how to go on.

    folder: the experiment's; a file of it that cannot be opened is the fault of who moved or changed it.

    Ctrl-C and, where no handler saves the state, a termination become KeyboardInterrupt after a warning. Of a worker
    or another process of the run that died UserError is raised; a UserError of a worker loses the worker's traceback.
    """
    before, threading.excepthook = _interrupt_on_termination(), _report_but_broken_connections
    sys.excepthook = ignore_threads
    try:
        yield
    except ReportedInterruptError:
        raise
    except (SystemExit, KeyboardInterrupt) as interruption:  # Lightning turns the latter into the former
        if not _was_reported(interruption):
            with _further_interrupts_ignored():
                log.warning("%s", message())
        raise ReportedInterruptError from interruption
    except UserError as error:
        raise UserError(re.sub(r"(?s)^Caught UserError in .*\n\S*UserError: ", "", str(error)).strip()) from error
    except (OSError, EOFError) as error:
        if _while_receiving_data(error):
            raise UserError(f"a process that reads the data ended ({type(error).__name__}). {message()}") from error
        path = (
            Path(os.fsdecode(error.filename)) if isinstance(getattr(error, "filename", None), str | bytes) else None
        )
        if path is None or folder is None or not path.absolute().is_relative_to(folder.absolute()):
            raise
        raise UserError(
            f"{path}: {error.strerror}; was the experiment's folder moved or changed? Put it back, then go on with -e"
        ) from error
    except RuntimeError as error:
        if not (what := _what_died(error)):
            raise
        raise UserError(f"{what}. {message()}") from error
    finally:
        threading.excepthook, sys.excepthook = threading.__excepthook__, sys.__excepthook__
        for number, handler in before.items():
            signal.signal(number, handler)


def _while_receiving_data(error: Exception) -> bool:
    """Whether a worker died while it handed over a batch, by a socket that its parent then reads in vain."""
    return any(
        frame.name == "_try_get_data" and frame.filename.endswith("dataloader.py")
        for frame in traceback.extract_tb(error.__traceback__)
    )


def _was_reported(interruption: BaseException) -> bool:
    """Whether it came while another one was on its way out."""
    error: BaseException | None = interruption
    while error is not None and not isinstance(error, ReportedInterruptError):
        error = error.__context__
    return error is not None


def _report_but_broken_connections(failure: Any) -> None:
    """For threads: tensorboard's writes its events, and raises what failed once more in the main one."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


@contextmanager
def _further_interrupts_ignored() -> Iterator[None]:
    """Where a user holds Ctrl-C down, the first one is answered."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: None)  # a handler, which child processes do not inherit
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt_on_termination() -> dict[int, Any]:
    """Let SIGTERM and SIGHUP do what Ctrl-C does; the handlers that were there before."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    try:
        numbers = (signal.SIGTERM, signal.SIGHUP)
        return {
            number: signal.signal(number, interrupt) for number in numbers if not callable(signal.getsignal(number))
        }
    except ValueError:  # not in the main thread, which alone receives signals
        return {}


def _what_died(error: RuntimeError) -> str | None:
    text = str(error)
    if found := re.search(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)(?: is killed by signal: (\w[\w ]*))?", text):
        how = f"was killed by signal {found[2].strip()}" if found[2] else "exited unexpectedly"
        return f"a process that reads the data (pid {found[1]}) {how}; was there too little memory"[:200] + "?"
    if dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in text or "onnection" in text):
        return f"another process of the run died or could not be reached ({text.splitlines()[0][:150]})"
    return None


def how_to_continue(experiment: Experiment, resume_command: str) -> str:
    """What is saved of an interrupted run, and the command for it."""
    if experiment.last.is_file():
        step = load_checkpoint(experiment.last)[METADATA]["step"]
        return (
            f"interrupted; the state of step {step} is saved in {experiment.last}. To continue:\n  {resume_command}"
        )
    return "interrupted before anything was saved; give the same command again, with -a"


def fit(trainer: Trainer, module: LightningModule, experiment: Experiment, resume_command: str) -> bool:
    """Train to the end, or until a signal or trainer.max_time; returns whether the end was reached.

    If it was not, a warning says where the state is saved and which command continues the run.
    """
    with interruptions_reported(lambda: how_to_continue(experiment, resume_command), experiment.folder):
        try:
            trainer.fit(module, ckpt_path=experiment.resume_from, weights_only=True)
        except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            if not _is_of_restoring(error):
                raise
            raise UserError(
                f"{experiment.resume_from}: the state of training in it does not fit this run "
                f"({type(error).__name__}: {error}); its weights alone can be taken with --init-from, or -k"
            ) from error
    if trainer.is_global_zero:
        _log_hyperparameters(trainer, module)
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


def _is_of_restoring(error: Exception) -> bool:
    """Whether it was raised while Lightning put a checkpoint's state in its place."""
    return any(
        frame.filename.endswith("checkpoint_connector.py")
        and frame.name.startswith(("restore", "_restore", "resume"))
        for frame in traceback.extract_tb(error.__traceback__)
    )


def _log_hyperparameters(trainer: Trainer, module: Any) -> None:
    """The configuration for tensorboard's HPARAMS tab, beside the metric that chooses the best checkpoint."""
    from torch.utils.tensorboard.summary import hparams

    flat = {"upstream": module.upstream_name, **dict(flatten(to_plain(module.config), ""))}
    values = {key: each if isinstance(each, int | float | str | bool) else str(each) for key, each in flat.items()}
    for summary in hparams(values, {module.monitor: 0.0}):  # the name alone is used; its values are logged as it is
        trainer.logger.experiment._get_file_writer().add_summary(summary)
    trainer.logger.experiment.flush()
