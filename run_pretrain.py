"""Pretrain an upstream: arguments -> configuration -> module and data -> Trainer.fit."""

import argparse
import logging
import time
from pathlib import Path
from typing import Any

from mynah.commands.arguments import build_parser, collect_overrides, run_script
from mynah.plugins import describe_plugins, get_plugin, import_plugin
from mynah.utility.configuration.load import from_plain, load_config, save_config, to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import CARD, load_weights, read_checkpoint
from mynah.utility.experiments.folder import Experiment, is_launched_process, open_experiment, write_json
from mynah.utility.training.allocator import keep_freed_memory
from mynah.utility.training.config import refuse_other_model, refuse_other_optimizer

log = logging.getLogger("mynah")

EXAMPLES = """\
  python run_pretrain.py -n exp -u aalbert                          # the demo recipe
  python run_pretrain.py -n exp -u aalbert -o datarc.file_path.libri=/data/LibriSpeech/train-clean-360
  python run_pretrain.py -e result/pretrain/exp                     # go on
  python run_pretrain.py -n exp -u mockingjay -c my.yaml -o trainer.devices=4 trainer.precision=bf16-mixed
"""


def parse_arguments() -> argparse.Namespace:
    parser = build_parser("Pretrain an upstream on raw speech or video.", EXAMPLES, "result/pretrain")
    parser.add_argument("-u", dest="upstream", metavar="NAME", help="upstream to pretrain (see --list)")
    parser.add_argument(
        "-g", dest="model_config", metavar="FILE", type=Path, help="YAML of model and features sections, on top of -c"
    )
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> int:
    if arguments.list:
        print(describe_plugins(arguments.plugin_path))
        return 0
    experiment = open_experiment(arguments.root, arguments.name, arguments.resume, arguments.auto_resume)
    name = choose_upstream(arguments, experiment)
    plugin = get_plugin("upstream", name, arguments.plugin_path)
    expert = import_plugin(plugin, "expert")
    if not hasattr(expert, "build_pretraining"):
        raise UserError(f"upstream '{name}' has nothing to pretrain; use it as it is in run_downstream.py")
    config = configure(arguments, experiment, plugin.folder / "pretrain_config.yaml", expert.PretrainConfig)

    import torch

    from mynah.utility.training.trainer import check_device  # imports lightning

    check_device(arguments.device)
    torch.manual_seed(config.seed)
    module = expert.build_pretraining(config, experiment)
    if experiment.resume_from is not None:  # said before anything is written
        weights = read_checkpoint(experiment.resume_from, "pretrain")["state_dict"]
        load_weights(module, weights, experiment.resume_from)
    elif arguments.init_from:
        module.init_from(read_checkpoint(arguments.init_from, "pretrain", name), arguments.init_from)
    module.prepare()
    return train(arguments, experiment, name, config, module)


def choose_upstream(arguments: argparse.Namespace, experiment: Experiment) -> str:
    """-u, or the upstream of the experiment that is resumed; both must agree."""
    if experiment.resume_from is not None:
        card = read_checkpoint(experiment.resume_from, "pretrain", arguments.upstream)[CARD]
        return card["upstream"]
    if not arguments.upstream:
        raise UserError("-u NAME is needed: the upstream to pretrain (see --list)")
    return arguments.upstream


def configure(arguments: argparse.Namespace, experiment: Experiment, default: Path, schema: type) -> Any:
    """-c or the plugin's YAML, then -g, then -o; of a resumed run its own configuration or -c, then -o."""
    overrides = collect_overrides(arguments)
    if experiment.resume_from is not None:
        return configure_again(arguments, experiment.resume_from, schema, overrides)
    return configure_from_files(arguments, arguments.config or default, schema, overrides)


def configure_from_files(arguments: argparse.Namespace, file: Path, schema: type, overrides: list[str]) -> Any:
    """`file`, then -g, then -o; the demo recipe where they name no data."""
    files = [file] + ([arguments.model_config] if arguments.model_config else [])
    config = load_config(schema, files=files, overrides=overrides)
    if not config.has_data():
        log.info("no data configured (datarc.file_path): this is the demo recipe, on %s", schema.demo_data)
        config = load_config(schema, files=files, overrides=overrides, demo=True)
        config.use_demo_data()
    return config


def configure_again(arguments: argparse.Namespace, checkpoint: Path, schema: type, overrides: list[str]) -> Any:
    """The configuration of a resumed run; what is for new runs alone is refused.

    But for -a, which repeats the command that began the run.
    """
    for flag, value in (("-g", arguments.model_config), ("--init-from", arguments.init_from)):
        if value is not None and not arguments.auto_resume:
            raise UserError(f"{flag} is for a new run; {checkpoint} brings its own model; leave {flag} out")
    plain = read_checkpoint(checkpoint, "pretrain")[CARD]["pretrain_config"]
    if arguments.config is not None:
        config = configure_from_files(arguments, arguments.config, schema, overrides)
    else:
        config = from_plain(schema, plain, str(checkpoint), overrides)
    refuse_other_model(config, plain, checkpoint)
    refuse_other_optimizer(config, plain, checkpoint)
    return config


def train(arguments: argparse.Namespace, experiment: Experiment, name: str, config: Any, module: Any) -> int:
    """Evaluate, train, and write metrics.json."""
    from mynah.utility.training.trainer import build_trainer, fit

    log.info("%s: %s", name, module.describe_size())
    trainer = build_trainer(
        config.trainer,
        experiment,
        config.checkpoint,
        device=arguments.device,
        monitor=module.monitor,
        mode=module.mode,
    )
    write_configuration(experiment, name, config)
    started = time.monotonic()
    if experiment.resume_from is None and module.held_out:
        trainer.validate(module, verbose=False)
    finished = fit(trainer, module, experiment, f"python run_pretrain.py -e {experiment.folder}")
    if finished and module.held_out and module.validated_at != trainer.global_step:
        trainer.validate(module, verbose=False)
    if trainer.is_global_zero:
        metrics = {
            "upstream": name,
            "steps": trainer.global_step,
            "val_loss_at_start": module.first_val_loss,
            "val_loss": module.last_val_loss,
            "seconds": round(time.monotonic() - started, 1),
            "finished": finished,
        }
        write_json(metrics, experiment.folder / "metrics.json")
        log.info("%s", "  ".join(f"{key} {value}" for key, value in metrics.items()))
        log.info("checkpoints in %s; tensorboard --logdir %s", experiment.checkpoints, experiment.folder)
    return 0 if finished else 130


def write_configuration(experiment: Experiment, name: str, config: Any) -> None:
    """The configuration as resolved; model_config.yaml is what -g takes."""
    if is_launched_process():
        return
    experiment.make_folder()
    save_config(config, experiment.folder / "pretrain_config.yaml")
    plain = to_plain(config)
    save_config(
        {key: plain[key] for key in ("model", "features") if key in plain}, experiment.folder / "model_config.yaml"
    )
    log.info("%s: configuration and results in %s", name, experiment.folder)


if __name__ == "__main__":
    keep_freed_memory()
    run_script(run, parse_arguments())
