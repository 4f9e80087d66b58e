"""Training a task and testing it, and evaluating a trained one."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from mynah.downstream.build import Task, TaskOptions, build_new, find_trained, rebuild
from mynah.downstream.interfaces import SPLITS
from mynah.downstream.module import DownstreamModule
from mynah.utility.configuration.load import save_config
from mynah.utility.experiments.checkpoint import METADATA, read_checkpoint
from mynah.utility.experiments.folder import is_launched_process, write_json
from mynah.utility.training.device import check_device
from mynah.utility.training.trainer import VAL_CHECK_INTERVAL, build_trainer, fit, interruptions_reported
from mynah.utility.training.trainer_arguments import count_processes

log = logging.getLogger("mynah")


def train(options: TaskOptions) -> dict[str, Any]:
    """Train a task, or continue its run, and test the checkpoint that is best on the dev split.

    Returns what metrics.json holds; {"finished": False} where a signal or `trainer.max_time` ended training early,
    which can be resumed then. Raises UserError where anything given does not fit, before anything is written.
    """
    check_device(options.device)
    experiment = options.open_experiment()
    task = build_new(options, experiment) if experiment.resume_from is None else rebuild(options, experiment)
    for split in SPLITS:  # a split without data is reported now rather than when training comes to it
        task.model.expert.get_dataset(split)
    module = DownstreamModule(task)
    trainer = _make_trainer(options, module)
    _write_configuration(task)
    started = time.monotonic()
    if not fit(trainer, module, experiment, f"{options.program} -e {experiment.folder}"):
        return {"finished": False}
    best = experiment.best if experiment.best.is_file() else experiment.last
    steps = trainer.global_step
    if not module.trained:
        log.warning("nothing was left to train: %s is at step %d of %d", experiment.folder, steps, trainer.max_steps)
    _test(options, trainer, module, ckpt_path=best, weights_only=True)
    return _write_metrics(trainer, module, best, steps, time.monotonic() - started)


def evaluate(options: TaskOptions, split: str = "test") -> dict[str, Any]:
    """Metrics of one split with a trained task (`options.resume`), also written with a report into its folder."""
    check_device(options.device)
    experiment = find_trained(options, writes=True)
    module = DownstreamModule(rebuild(options, experiment))
    module.test_split = split
    experiment.make_folder()
    trainer = _make_trainer(options, module)
    _test(options, trainer, module)
    log.info("report in %s", module.report_folder)
    return {"split": split, **module.metrics[split]}


def _make_trainer(options: TaskOptions, module: DownstreamModule) -> Trainer:
    settings = dict(module.config.trainer)
    batches = settings["max_steps"] * settings.get("accumulate_grad_batches", 1)
    # At least one validation.
    if settings.get("val_check_interval", VAL_CHECK_INTERVAL) > batches:
        settings["val_check_interval"] = batches
    several = count_processes(settings) != 1
    some_unused = module.features.fine_tune or module.config.features.zeroed
    if some_unused and several and settings.get("strategy", "auto") in ("auto", "ddp"):
        # The upstream's heads and mask token get no gradient; nor do the layers' weights where features are zeroed.
        settings["strategy"] = "ddp_find_unused_parameters_true"
    return build_trainer(
        settings,
        module.experiment,
        module.config.checkpoint,
        device=options.device,
        monitor=module.monitor,
        mode=module.expert.mode,
    )


def _write_configuration(task: Task) -> None:
    if not is_launched_process():
        task.experiment.make_folder()
        save_config(task.config, task.experiment.folder / "config.yaml")


def _test(options: TaskOptions, trainer: Trainer, module: DownstreamModule, **arguments: Any) -> None:
    """trainer.test; where Ctrl-C ends it, the command that repeats it is reported."""
    command = f"{options.program} -m evaluate -e {module.experiment.folder} --split {module.test_split}"
    with interruptions_reported(lambda: f"the test was not finished. To repeat it:\n  {command}"):
        trainer.test(module, verbose=False, **arguments)


def _write_metrics(
    trainer: Trainer, module: DownstreamModule, best: Path, steps: int, seconds: float
) -> dict[str, Any]:
    """metrics.json of a finished run."""
    path = module.experiment.folder / "metrics.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # A run that was at its end already does not evaluate dev again.
    dev = {"dev": earlier["dev"]} if "dev" in earlier else {}
    metadata = read_checkpoint(best, "downstream")[METADATA]
    metrics = {
        "upstream": metadata["upstream"],
        "downstream": metadata["downstream"],
        "fine_tune": metadata["fine_tune"],
        "steps": steps,
        "best_step": metadata["step"],
        **dev,
        **module.metrics,
        "seconds": round(seconds, 1),
        "finished": True,
    }
    if trainer.is_global_zero:
        write_json(metrics, path)
        log.info("results in %s", module.experiment.folder)
    return metrics
