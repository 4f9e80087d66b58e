"""Training a task and testing it, and evaluating a trained one."""

import hashlib
import logging
import re
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from mynah.downstream.build import Task, TaskOptions, build_new, find_trained, rebuild
from mynah.downstream.caching import number_format
from mynah.downstream.interfaces import SPLITS, FeaturesConfig
from mynah.downstream.layer_weights import draw_layer_weights, layer_weights
from mynah.downstream.module import DownstreamModule
from mynah.utility.configuration.load import save_config, to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, read_checkpoint
from mynah.utility.experiments.folder import Experiment, is_launched_process, make_writable, write_json
from mynah.utility.experiments.provenance import RunRecord, checkpoint_origin
from mynah.utility.training.device import check_device
from mynah.utility.training.identity import dataset_fingerprint
from mynah.utility.training.trainer import (
    VAL_CHECK_INTERVAL,
    best_of,
    build_trainer,
    check_identity,
    fit,
    how_to_continue,
    interruptions_reported,
)
from mynah.utility.training.trainer_arguments import count_processes

log = logging.getLogger("mynah")

SAME_RESULTS = (
    *("trainer.", "dataloader.", "optimizer.", "scheduler.", "checkpoint.", "inference."),
    *("features.cache", "features.disk_gib", "features.zeroed"),
)
"""Beginnings of keys that change no result of an evaluation, or (zeroed) that name their report otherwise."""
OTHER_RESULTS = ("trainer.limit_test_batches",)
"""Those among them that do change results."""
ROUNDING = ("trainer.precision", "features.cache")
"""Those that may change the format of numbers, and then the last digits of a result."""


def train(options: TaskOptions) -> dict[str, Any]:
    """Train a task, or continue its run, and test the checkpoint that is best on the dev split.

    Returns what metrics.json holds; {"finished": False} where a signal or `trainer.max_time` ended training early,
    which can be resumed then. Raises UserError where anything given does not fit, before anything is written.
    """
    check_device(options.device)
    experiment = options.open_experiment()
    try:
        return _train(options, experiment)
    finally:
        experiment.unlock()


def _train(options: TaskOptions, experiment: Experiment) -> dict[str, Any]:
    task = build_new(options, experiment) if experiment.resume_from is None else rebuild(options, experiment)
    for split in SPLITS:  # a split without data is reported now rather than when training comes to it
        task.model.expert.get_dataset(split)
    module = DownstreamModule(task)
    trainer = _make_trainer(options, module)
    check_identity(trainer, module, experiment, options.allow_changes)
    with interruptions_reported(lambda: how_to_continue(experiment, f"{options.program} -e {experiment.folder}")):
        _write_configuration(task)
        record = RunRecord(experiment.folder)
        record.begin(
            _step_of(experiment),
            kind="downstream",
            upstream=module.upstream_name,
            downstream=task.name,
            upstream_checkpoint=task.origin,
            fine_tune=module.features.fine_tune,
            init_from=checkpoint_origin(options.init_from),
            data={
                "file_path": to_plain(task.config)["datarc"].get("file_path"),
                "fingerprints": module.identity["data"],
            },
        )
        with record.completed(lambda: max(trainer.global_step, module.steps_done), lambda: trainer.max_steps):
            return _fit_and_test(options, trainer, module)


def _step_of(experiment: Experiment) -> int:
    """The step that a run goes on from; 0 of a new one."""
    source = experiment.resume_from
    return 0 if source is None else read_checkpoint(source, "downstream")[METADATA]["step"]


def _fit_and_test(options: TaskOptions, trainer: Trainer, module: DownstreamModule) -> dict[str, Any]:
    experiment, started = module.experiment, time.monotonic()
    if not fit(trainer, module, experiment, f"{options.program} -e {experiment.folder}"):
        return {"finished": False}
    choice = best_of(trainer)
    best = experiment.best if experiment.best.is_file() else experiment.last
    steps = module.steps_done = trainer.global_step  # the test loads the best checkpoint's
    if not module.trained:
        log.warning("nothing was left to train: %s is at step %d of %d", experiment.folder, steps, trainer.max_steps)
    _test(options, trainer, module, ckpt_path=best, weights_only=True)
    return _write_metrics(trainer, module, best, choice, steps, time.monotonic() - started)


def evaluate(options: TaskOptions, split: str = "test") -> dict[str, Any]:
    """Metrics of one split with a trained task (`options.resume`), also written with a report into its folder.

    Raises UserError.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    check_device(options.device)
    experiment = find_trained(options, writes=True)
    module = DownstreamModule(rebuild(options, experiment))
    module.test_split = split
    module.report_suffix = _report_suffix(options, experiment, module)
    make_writable(experiment.folder, "-p")
    trainer = _make_trainer(options, module)
    _test(options, trainer, module)
    about = {
        "split": split,
        "checkpoint": str(experiment.resume_from),
        "file_path": to_plain(module.config)["datarc"].get("file_path"),
        "fingerprint": dataset_fingerprint(module.expert.get_dataset(split)),
        "overrides": list(options.overrides),
    }
    if trainer.is_global_zero:
        write_json(about, module.report_folder / "evaluation.json")
    log.info("report in %s", module.report_folder)
    return {"split": split, **module.metrics[split]}


def _report_suffix(options: TaskOptions, experiment: Experiment, module: DownstreamModule) -> str:
    """What sets an evaluation apart from the run's own test: other data, other options, another checkpoint.

    Options that change no result do not; nor do those of ROUNDING, where numbers are rounded as in the run.
    """
    metadata = read_checkpoint(experiment.resume_from, "downstream")[METADATA]
    same_rounding = _rounding(to_plain(module.config), module) == _rounding(metadata["task_config"], module)
    counted = OTHER_RESULTS if same_rounding else (*OTHER_RESULTS, *ROUNDING)
    keys = {each: each.partition("=")[0].strip() for each in options.overrides}
    changes = [each for each, key in keys.items() if not key.startswith(SAME_RESULTS) or key in counted]
    earlier = metadata.get("run", {}).get("data", {})
    now = dataset_fingerprint(module.expert.get_dataset(module.test_split))
    if earlier.get(module.test_split, now) == now:
        changes = [each for each in changes if not each.startswith("datarc.file_path")]
    elif not changes:
        changes = [f"data={now}"]
    if experiment.best.is_file() and experiment.resume_from.name != experiment.best.name:
        changes.append(experiment.resume_from.stem)
    if not changes:
        return ""
    text = "_".join(re.sub(r"[^\w.=-]+", "-", each.removeprefix("datarc.")) for each in changes)
    digest = hashlib.sha256("\n".join([*changes, now]).encode(errors="surrogateescape")).hexdigest()[:8]
    return f"_{text[:80]}_{digest}"


def _rounding(config: dict[str, Any], module: DownstreamModule) -> tuple[str, str]:
    """The precision, and the format of features on disk, if they lie there."""
    features = FeaturesConfig.model_validate(config["features"])
    rounds = features.cache == "disk" and not module.features.fine_tune
    dtype = number_format(features, module.features.featurizer.reads_mean) if rounds else torch.float32
    return str(config["trainer"].get("precision", "32-true")), str(dtype)


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
        monitor=module.expert.monitor,
        mode=module.expert.mode,
    )


def _write_configuration(task: Task) -> None:
    if not is_launched_process():
        task.experiment.begin()
        save_config(task.config, task.experiment.folder / "config.yaml")


def _test(options: TaskOptions, trainer: Trainer, module: DownstreamModule, **arguments: Any) -> None:
    """trainer.test; where Ctrl-C ends it, the command that repeats it is reported."""
    command = f"{options.program} -m evaluate -e {module.experiment.folder} --split {module.test_split}"
    with interruptions_reported(lambda: f"the test was not finished. To repeat it:\n  {command}"):
        trainer.test(module, verbose=False, **arguments)


def _write_metrics(
    trainer: Trainer, module: DownstreamModule, best: Path, choice: dict[str, Any] | None, steps: int, seconds: float
) -> dict[str, Any]:
    """metrics.json of a finished run: dev and test of one checkpoint, the best.

    choice: what `best_of` says of it.
    """
    path = module.experiment.folder / "metrics.json"
    metadata = read_checkpoint(best, "downstream")[METADATA]
    weights = layer_weights(module.features.featurizer)
    if weights and trainer.is_global_zero:
        draw_layer_weights(weights, module.experiment.folder / "layer_weights.png")
    metrics = {
        "upstream": metadata["upstream"],
        "downstream": metadata["downstream"],
        "fine_tune": metadata["fine_tune"],
        "steps": steps,
        "best_step": metadata["step"],
        **({"dev": choice["metrics"]} if choice else {}),
        "test": module.metrics["test"],
        **({"layer_weights": weights} if weights else {}),
        "seconds": round(seconds, 1),
        "finished": True,
    }
    if trainer.is_global_zero:
        write_json(metrics, path)
        log.info("results in %s", module.experiment.folder)
    return metrics
