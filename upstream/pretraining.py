"""Pretraining an upstream, from options to metrics.json."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mynah.plugins import get_plugin, import_plugin
from mynah.utility.configuration.load import from_plain, load_recipe, save_config, to_plain
from mynah.utility.configuration.recipes import DEMO, find_recipe, recipes_beside
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, load_weights, read_checkpoint
from mynah.utility.experiments.folder import Experiment, is_launched_process, write_json
from mynah.utility.experiments.options import RunOptions
from mynah.utility.experiments.provenance import RunRecord, checkpoint_origin
from mynah.utility.training.config import (
    ARCHITECTURE,
    PretrainConfig,
    refuse_other_model,
    refuse_other_optimizer,
    refuse_other_validation,
)

log = logging.getLogger("mynah")


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(RunOptions):
    """What `pretrain` takes."""

    upstream: str | None = None
    """-u: the upstream's name; of a resumed run it may be left out."""
    root: Path = Path("result/pretrain")
    program: str = "mynah pretrain"


def pretrain(options: PretrainOptions) -> dict[str, Any]:
    """Pretrain an upstream, or continue its run; returns what metrics.json holds.

    "finished" in it is False where a signal or `trainer.max_time` ended the run early; it can be resumed then.
    Raises UserError where anything given does not fit, before anything is written.
    """
    from mynah.utility.training.device import check_device

    check_device(options.device)
    experiment = options.open_experiment()
    try:
        return _pretrain(options, experiment)
    finally:
        experiment.unlock()


def _pretrain(options: PretrainOptions, experiment: Experiment) -> dict[str, Any]:
    from mynah.utility.training.trainer import check_identity, how_to_continue, interruptions_reported

    name = _choose_upstream(options, experiment)
    plugin = get_plugin("upstream", name, options.plugin_paths)
    expert = import_plugin(plugin, "expert")
    _check_expert(expert, name)
    base = plugin.folder / "pretrain_config.yaml"
    config = _configure(options, experiment, base, expert.PretrainConfig)
    module = _build_module(options, experiment, name, expert, config)
    trainer = _build_trainer(options, experiment, module, base)
    module.upstream_name = name
    check_identity(trainer, module, experiment, options.allow_changes)
    command = f"{options.program} -e {experiment.folder}"
    with interruptions_reported(lambda: how_to_continue(experiment, command)):
        _write_configuration(experiment, name, config)
        record = RunRecord(experiment.folder)
        record.begin(
            _step_of(experiment),
            kind="pretrain",
            upstream=name,
            init_from=checkpoint_origin(options.init_from, name),
            data={"file_path": to_plain(config)["datarc"].get("file_path"), "fingerprints": module.identity["data"]},
        )
        with record.completed(lambda: trainer.global_step, lambda: trainer.max_steps):
            return _fit(experiment, name, module, trainer, command)


def _step_of(experiment: Experiment) -> int:
    """The step that a run goes on from; 0 of a new one."""
    source = experiment.resume_from
    return 0 if source is None else read_checkpoint(source, "pretrain")[METADATA]["step"]


def _check_expert(expert: ModuleType, name: str) -> None:
    """Raise UserError where the plugin's expert.py does not keep the contract (upstream/README.md)."""
    if not hasattr(expert, "build_pretraining"):
        raise UserError(f"upstream '{name}' has nothing to pretrain; use it as it is, with a downstream task")
    schema = getattr(expert, "PretrainConfig", None)
    if not (isinstance(schema, type) and issubclass(schema, PretrainConfig)):
        raise UserError(
            f"{expert.__file__}: has build_pretraining, but no class PretrainConfig that derives from "
            "mynah.utility.training.config.PretrainConfig; add it (upstream/README.md)"
        )


def _choose_upstream(options: PretrainOptions, experiment: Experiment) -> str:
    """-u, or the upstream of the experiment that is resumed; both must agree."""
    if experiment.resume_from is not None:
        return read_checkpoint(experiment.resume_from, "pretrain", options.upstream)[METADATA]["upstream"]
    if not options.upstream:
        raise UserError("-u NAME is needed: the upstream to pretrain (see --list)")
    return options.upstream


def _configure(options: PretrainOptions, experiment: Experiment, base: Path, schema: type) -> Any:
    """-c or the plugin's YAML, then -g, then -o; of a resumed run its own configuration, or -c and -g, then -o."""
    checkpoint = experiment.resume_from
    if checkpoint is None:
        return _configure_from_files(options, base, schema)
    options.refuse_new_run_options(checkpoint, ("-g", "--init-from"))
    plain = read_checkpoint(checkpoint, "pretrain")[METADATA]["pretrain_config"]
    if options.config is not None or options.model_config is not None:
        config = _configure_from_files(options, base, schema)
    else:
        config = from_plain(schema, plain, str(checkpoint), options.overrides)
    plain = to_plain(from_plain(schema, plain, str(checkpoint)))  # earlier versions wrote some values otherwise
    refuse_other_model(config, plain, checkpoint)
    refuse_other_optimizer(config, plain, checkpoint)
    refuse_other_validation(config, plain, checkpoint)
    return config


def _configure_from_files(options: PretrainOptions, base: Path, schema: type) -> Any:
    """-c, a file or recipe, or `base`, then -g, then -o; the demo recipe where they name no data."""
    file, demo = find_recipe(options.config, base)
    files = [file] + ([options.model_config] if options.model_config else [])
    config = load_recipe(schema, files=files, overrides=options.overrides, has_data=schema.has_data, demo=demo)
    if not config.has_data():
        log.info("no data configured (datarc.file_path): this is the demo recipe, on %s", schema.demo_data)
        config.use_demo_data()
    return config


def _build_module(
    options: PretrainOptions, experiment: Experiment, name: str, expert: ModuleType, config: Any
) -> Any:
    """The module to train. Weights that do not fit are refused here, before anything is written."""
    import torch

    from mynah.utility.training.pretraining import PretrainingModule

    torch.manual_seed(config.seed)
    module = expert.build_pretraining(config, experiment)
    if not isinstance(module, PretrainingModule):
        raise UserError(
            f"{expert.__file__}: build_pretraining returned {type(module).__name__}; expected a "
            "mynah.utility.training.pretraining.PretrainingModule (upstream/README.md)"
        )
    if experiment.resume_from is not None:
        weights = read_checkpoint(experiment.resume_from, "pretrain")["state_dict"]
        load_weights(module, weights, experiment.resume_from)
    elif options.init_from is not None:
        module.init_from(read_checkpoint(options.init_from, "pretrain", name), options.init_from)
    module.prepare()
    log.info("%s: %s", name, module.describe_size())
    return module


def _build_trainer(options: PretrainOptions, experiment: Experiment, module: Any, base: Path) -> Any:
    from mynah.utility.training.trainer import build_trainer

    others = [f"-c {name}" for name, file in recipes_beside(base).items() if file != base or name == DEMO]

    config = module.config
    return build_trainer(
        config.trainer,
        experiment,
        config.checkpoint,
        device=options.device,
        monitor=module.monitor,
        mode=module.mode,
        shorter=" or ".join(others),
    )


def _write_configuration(experiment: Experiment, name: str, config: Any) -> None:
    """The configuration as resolved; model_config.yaml is what -g takes."""
    if is_launched_process():
        return
    experiment.begin()
    plain = to_plain(config)
    save_config(plain, experiment.folder / "pretrain_config.yaml")
    model = {key: plain[key] for key in ARCHITECTURE if key in plain}
    save_config(model, experiment.folder / "model_config.yaml")
    log.info("%s: configuration and results in %s", name, experiment.folder)


def _fit(experiment: Experiment, name: str, module: Any, trainer: Any, command: str) -> dict[str, Any]:
    """Evaluate, train, evaluate, and write metrics.json."""
    from mynah.utility.training.trainer import best_of, fit, states_of

    started = time.monotonic()
    if experiment.resume_from is None and module.validation_items:
        trainer.validate(module, verbose=False)
    finished = fit(trainer, module, experiment, command)
    if finished and module.validation_items and module.validated_at != trainer.global_step:
        trainer.validate(module, verbose=False)
        own = {"last_val_loss": module.last_val_loss}
        states_of(trainer).add_final_validation(trainer, module.validation_metrics, own)
    best = best_of(trainer)
    metrics = {
        "upstream": name,
        "steps": trainer.global_step,
        "val_loss_at_start": module.first_val_loss,
        "val_loss": module.last_val_loss,
        **({"best_step": best["step"], "best_val_loss": best["score"]} if best else {}),
        "seconds": round(time.monotonic() - started, 1),
        "finished": finished,
    }
    if trainer.is_global_zero:
        write_json(metrics, experiment.folder / "metrics.json")
        log.info("%s", "  ".join(f"{key} {value}" for key, value in metrics.items()))
        log.info("checkpoints in %s; tensorboard --logdir %s", experiment.checkpoints, experiment.folder)
    return metrics
