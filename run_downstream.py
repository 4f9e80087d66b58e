"""Train a task on an upstream, evaluate it, or predict with it: arguments -> configuration -> module -> Trainer."""

import argparse
import itertools
import json
import logging
import time
from pathlib import Path
from typing import Any

from mynah.commands.arguments import build_parser, collect_overrides, parse_flag, run_script
from mynah.downstream.interfaces import SPLITS
from mynah.plugins import describe_plugins, get_plugin, import_plugin
from mynah.utility.configuration.load import from_plain, load_config, save_config
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import CARD, load_weights, locate_checkpoint, read_checkpoint
from mynah.utility.experiments.folder import (
    Experiment,
    is_launched_process,
    make_writable,
    open_experiment,
    write_json,
)
from mynah.utility.training.allocator import keep_freed_memory
from mynah.utility.training.config import refuse_other_model, refuse_other_optimizer

log = logging.getLogger("mynah")

EXAMPLES = """\
  python run_downstream.py -n sid -u aalbert -d voxceleb1_speaker -k result/pretrain/exp
  python run_downstream.py -n sid_fbank -u fbank -d voxceleb1_speaker -o datarc.file_path=/data/VoxCeleb1
  python run_downstream.py -n sid_ft -u aalbert -d voxceleb1_speaker -k result/pretrain/exp -f
  python run_downstream.py -n cap -u vidswin_albert -d vatex_caption -k result/pretrain/clips -f
  python run_downstream.py -m evaluate -e result/downstream/sid --split dev
  python run_downstream.py -m inference -e result/downstream/sid --input a.wav folder/
"""


def parse_arguments() -> argparse.Namespace:
    parser = build_parser("Train, evaluate and use a task on an upstream's features.", EXAMPLES, "result/downstream")
    task = parser.add_argument_group("upstream and task")
    task.add_argument("-u", dest="upstream", metavar="NAME", help="upstream (see --list)")
    task.add_argument("-d", dest="downstream", metavar="NAME", help="task (see --list)")
    task.add_argument("-k", dest="checkpoint", metavar="CKPT", help="the upstream's checkpoint, experiment or URL")
    task.add_argument("-g", dest="model_config", metavar="FILE", help="the upstream's model configuration")
    task.add_argument(
        "-t", dest="pretrain_config", metavar="FILE", help="the upstream's pretraining configuration (optional)"
    )
    task.add_argument(
        "-f",
        dest="fine_tune",
        metavar="True|False",
        type=parse_flag,
        nargs="?",
        const=True,
        help="train the upstream too",
    )
    task.add_argument(
        "-s", dest="selection", choices=("hidden_states", "last_hidden_state"), help="which of the upstream's outputs"
    )
    task.add_argument(
        "-l", dest="layer", metavar="LAYER", type=int, help="one hidden state instead of a weighted sum"
    )
    mode = parser.add_argument_group("mode")
    mode.add_argument("-m", dest="mode", choices=("train", "evaluate", "inference"), default="train")
    mode.add_argument("--split", choices=SPLITS, help="of -m evaluate (default: test)")
    mode.add_argument("--input", metavar="FILE_OR_FOLDER", nargs="+", action="extend", help="of -m inference")
    mode.add_argument("--pictures", metavar="FOLDER", type=Path, help="of -m inference: draw each prediction there")
    mode.add_argument("--json", action="store_true", help="results as JSON on standard output")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> int:
    if arguments.list:
        print(describe_plugins(arguments.plugin_path))
        return 0
    for flag, mode in (("input", "inference"), ("pictures", "inference"), ("split", "evaluate")):
        if getattr(arguments, flag) is not None and arguments.mode != mode:
            raise UserError(f"--{flag} is of -m {mode}, but the mode is -m {arguments.mode}; give -m {mode}")
    from mynah.utility.training.trainer import check_device  # imports lightning

    check_device(arguments.device)
    return {"train": train, "evaluate": evaluate, "inference": infer}[arguments.mode](arguments)


def train(arguments: argparse.Namespace) -> int:
    experiment = open_experiment(arguments.root, arguments.name, arguments.resume, arguments.auto_resume)
    if experiment.resume_from is not None:
        module = rebuild(arguments, experiment, read_checkpoint(experiment.resume_from, "downstream"))
    else:
        module = build(arguments, experiment)
    for split in SPLITS:  # one without data is told now rather than when training comes to it
        module.expert.get_dataset(split)
    return train_and_test(arguments, experiment, module)


def build(arguments: argparse.Namespace, experiment: Experiment) -> Any:
    """The module of a new run: upstream from -u and -k, task from -d and its configuration."""
    from mynah.downstream.probing import Probing, upstream_info

    for flag, value in (("-u", arguments.upstream), ("-d", arguments.downstream)):
        if not value:
            raise UserError(f"{flag} NAME is needed (see --list)")
    upstream_plugin = get_plugin("upstream", arguments.upstream, arguments.plugin_path)
    task_plugin = get_plugin("downstream", arguments.downstream, arguments.plugin_path)
    expert_class = import_expert(task_plugin)
    config = configure(arguments, task_plugin.folder / "config.yaml", expert_class)
    upstream = build_upstream(upstream_plugin, upstream_options(arguments))
    if upstream.modality != expert_class.modality:
        raise UserError(
            f"upstream '{upstream.name}' reads {upstream.modality}, but task '{arguments.downstream}' needs "
            f"{expert_class.modality}; choose another of them (see --list)"
        )
    if not expert_class.has_data(config):
        log.info("no data configured (datarc.file_path): this is the demo recipe, on data made for it")
        config = configure(arguments, task_plugin.folder / "config.yaml", expert_class, demo=True)
        expert_class.use_demo_data(config)
    import torch

    torch.manual_seed(config.seed)
    expert = expert_class(upstream_info(upstream), config, folder=experiment.folder)
    fine_tune = bool(arguments.fine_tune)
    module = Probing(upstream, expert, config, experiment, task=arguments.downstream, fine_tune=fine_tune)
    if arguments.init_from:
        start = read_checkpoint(arguments.init_from, "downstream", arguments.upstream)
        load_weights(module, start["state_dict"], arguments.init_from)
        log.info("initialized from %s (step %d)", arguments.init_from, start[CARD]["step"])
    return module


def rebuild(arguments: argparse.Namespace, experiment: Experiment, checkpoint: dict[str, Any]) -> Any:
    """The module that a checkpoint describes, with its weights; -o values come before its configuration's."""
    from mynah.downstream.probing import Probing, upstream_info

    card = checkpoint[CARD]
    check_agreement(arguments, experiment.resume_from, card)
    upstream_plugin = get_plugin("upstream", card["upstream"], arguments.plugin_path)
    task_plugin = get_plugin("downstream", card["downstream"], arguments.plugin_path)
    expert_class = import_expert(task_plugin)
    overrides = collect_overrides(arguments)
    config = from_plain(expert_class.Config, card["task_config"], str(experiment.resume_from), overrides)
    refuse_other_optimizer(config, card["task_config"], experiment.resume_from)
    refuse_other_model(config, card["task_config"], experiment.resume_from)
    upstream = build_upstream(upstream_plugin, card["config"])
    expert = expert_class(upstream_info(upstream), config, state=card["task_state"], folder=experiment.folder)
    module = Probing(upstream, expert, config, experiment, task=card["downstream"], fine_tune=card["fine_tune"])
    load_weights(module, checkpoint["state_dict"], experiment.resume_from)
    return module


def check_agreement(arguments: argparse.Namespace, source: Path, card: dict[str, Any]) -> None:
    """Raise UserError for what is given beside -e or -a, but is not what the experiment was made with."""
    features = card["task_config"]["features"]
    pairs = {
        "-u": (arguments.upstream, card["upstream"]),
        "-d": (arguments.downstream, card["downstream"]),
        "-f": (arguments.fine_tune, card["fine_tune"]),
        "-s": (arguments.selection, features["selection"]),
        "-l": (arguments.layer, features["layer"]),
    }
    for flag, (given, own) in pairs.items():
        if given is not None and given != own:
            raise UserError(f"{flag} {given}: {source} was trained with {own}; leave {flag} out, or start a new run")
    new_run = {"-c": "config", "-k": "checkpoint", "-g": "model_config", "-t": "pretrain_config"}
    for flag, name in {**new_run, "--init-from": "init_from"}.items():
        # With -a the same command starts a run and goes on with it.
        if getattr(arguments, name) is not None and not arguments.auto_resume:
            raise UserError(f"{flag} is for a new run; {source} brings its own; leave {flag} out")


def import_expert(plugin: Any) -> Any:
    """The task's DownstreamExpert. Raises UserError where it is missing or unfinished."""
    expert_class = getattr(import_plugin(plugin, "expert"), "DownstreamExpert", None)
    source = plugin.folder / "expert.py"
    if expert_class is None:
        raise UserError(f"{source} defines no class DownstreamExpert; downstream/interfaces.py says what it must be")
    if missing := sorted(getattr(expert_class, "__abstractmethods__", ())):
        raise UserError(f"{source}: its DownstreamExpert lacks {', '.join(missing)}; see downstream/interfaces.py")
    return expert_class


def configure(arguments: argparse.Namespace, default: Path, expert_class: type, demo: bool = False) -> Any:
    """-c or the task's YAML, then -s, -l and -o."""
    overrides = collect_overrides(arguments)
    if arguments.selection:
        overrides.append(f"features.selection={arguments.selection}")
        if arguments.layer is None:  # a task's own choice of a layer would contradict it
            overrides.append("features.layer=null")
    if arguments.layer is not None:
        overrides.append(f"features.layer={arguments.layer}")
    return load_config(expert_class.Config, files=[arguments.config or default], overrides=overrides, demo=demo)


def upstream_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The hub entry's arguments that -k, -g and -t stand for."""
    options = {"ckpt": arguments.checkpoint, "config": arguments.model_config or arguments.pretrain_config}
    return {key: value for key, value in options.items() if value is not None}


def build_upstream(plugin: Any, options: dict[str, Any]) -> Any:
    return getattr(import_plugin(plugin, "hubconf"), plugin.name)(**options)


def make_trainer(arguments: argparse.Namespace, experiment: Experiment, module: Any) -> Any:
    from mynah.utility.training.trainer import VAL_CHECK_INTERVAL, build_trainer

    settings = dict(module.config.trainer)
    batches = settings["max_steps"] * settings.get("accumulate_grad_batches", 1)
    # So that dev is looked at once at least.
    settings["val_check_interval"] = min(settings.get("val_check_interval", VAL_CHECK_INTERVAL), batches)
    several = settings.get("devices", 1) not in (1, "1") or settings.get("num_nodes", 1) != 1
    some_unused = module.fine_tune or module.config.features.zeroed
    if some_unused and several and settings.get("strategy", "auto") in ("auto", "ddp"):
        # The upstream's heads and mask token get no gradient; nor do, of a control without features, layers' weights.
        settings["strategy"] = "ddp_find_unused_parameters_true"
    return build_trainer(
        settings,
        experiment,
        module.config.checkpoint,
        device=arguments.device,
        monitor=module.monitor,
        mode=module.expert.select_mode,
    )


def train_and_test(arguments: argparse.Namespace, experiment: Experiment, module: Any) -> int:
    """Train, then test the checkpoint that is best on the dev split."""
    from mynah.utility.training.trainer import fit

    trainer = make_trainer(arguments, experiment, module)
    if not is_launched_process():
        experiment.make_folder()
        save_config(module.config, experiment.folder / "config.yaml")
    started = time.monotonic()
    if not fit(trainer, module, experiment, f"python run_downstream.py -e {experiment.folder}"):
        return 130
    best = experiment.best if experiment.best.is_file() else experiment.last
    steps = trainer.global_step
    if not module.trained:
        log.warning("nothing was left to train: %s is at step %d of %d", experiment.folder, steps, trainer.max_steps)
    evaluate_command = f"python run_downstream.py -m evaluate -e {experiment.folder}"
    test(trainer, module, evaluate_command, ckpt_path=best, weights_only=True)
    if trainer.is_global_zero:
        card = read_checkpoint(best, "downstream")[CARD]
        path = experiment.folder / "metrics.json"
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        # A run that was at its end already does not score dev anew.
        dev = {"dev": earlier["dev"]} if "dev" in earlier else {}
        summary = {
            "upstream": card["upstream"],
            "downstream": card["downstream"],
            "fine_tune": card["fine_tune"],
            "steps": steps,
            "best_step": card["step"],
            **dev,
            **module.metrics,
            "seconds": round(time.monotonic() - started, 1),
        }
        write_json(summary, path)
        show(arguments, summary, f"results in {experiment.folder}")
    return 0


def test(trainer: Any, module: Any, command: str, **options: Any) -> None:
    """trainer.test; where Ctrl-C ends it, the command that does it again is said."""
    try:
        trainer.test(module, verbose=False, **options)
    except (SystemExit, KeyboardInterrupt) as interruption:  # Lightning makes the one of the other
        log.warning("the test was not finished. To do it again:\n  %s", command)
        raise KeyboardInterrupt from interruption


def evaluate(arguments: argparse.Namespace) -> int:
    """Metrics and report of one split, with an experiment's best checkpoint."""
    experiment = find_trained(arguments)
    module = rebuild(arguments, experiment, read_checkpoint(experiment.resume_from, "downstream"))
    module.test_split = arguments.split or "test"
    experiment.make_folder()
    trainer = make_trainer(arguments, experiment, module)
    test(trainer, module, f"python run_downstream.py -m evaluate -e {experiment.folder} --split {module.test_split}")
    if trainer.is_global_zero:
        where = f"report in {module.report_folder}"
        show(arguments, {"split": module.test_split, **module.metrics[module.test_split]}, where)
    return 0


def infer(arguments: argparse.Namespace) -> int:
    """Predictions for files, a line each; unreadable ones are named and the exit status is 1."""
    from mynah.downstream.inputs import INPUTS
    from mynah.utility.data.media_files import UnreadableMedia

    if not arguments.input:
        raise UserError("-m inference needs --input FILE_OR_FOLDER ...")
    if arguments.pictures:
        make_writable(arguments.pictures, "--pictures")
    experiment = find_trained(arguments)
    module = rebuild(arguments, experiment, read_checkpoint(experiment.resume_from, "downstream"))
    module.to("cuda" if use_cuda(arguments.device) else "cpu")
    inputs = INPUTS[module.expert.modality]
    results, failed, drawn = [], 0, set()
    given = [Path(each) for each in arguments.input]
    for path in [path for each in given for path in (inputs.find(each) if each.is_dir() else [each])]:
        try:
            signal = inputs.read(path, module.features.upstream, module.config)
        except UnreadableMedia as error:
            log.warning("skipped %s", error)
            failed += 1
            continue
        picture = arguments.pictures and unused_name(arguments.pictures / f"{path.stem}.png", drawn)
        result = module.predict_signal(signal, picture)
        results.append({"file": str(path), **result})
        if not arguments.json:
            print(f"{path}: {module.expert.format_prediction(result)}", flush=True)
    if arguments.json:
        print(json.dumps(results, indent=2))
    return 1 if failed else 0


def unused_name(path: Path, used: set[Path]) -> Path:
    """`path`, or where it is in `used` NAME_2, NAME_3, ...; adds what it returns to `used`."""
    names = (path.with_stem(f"{path.stem}_{number}") if number > 1 else path for number in itertools.count(1))
    found = next(name for name in names if name not in used)
    used.add(found)
    return found


def find_trained(arguments: argparse.Namespace) -> Experiment:
    """The experiment and checkpoint that -e (or -n) names; of an experiment, its best."""
    source = arguments.resume or (arguments.root / arguments.name if arguments.name else None)
    if source is None:
        raise UserError(f"-m {arguments.mode} needs -e DIR_OR_CKPT, a trained experiment")
    best = Path(source) / "checkpoints" / "best.ckpt"
    found = str(best if best.is_file() else source)
    if arguments.mode == "inference":  # writes nothing, so the checkpoint may lie anywhere
        checkpoint = locate_checkpoint(found)
        return Experiment(checkpoint.parent, checkpoint)
    return open_experiment(arguments.root, arguments.name, found)


def use_cuda(device: str) -> bool:
    import torch

    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def show(arguments: argparse.Namespace, results: dict[str, Any], where: str) -> None:
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    print("  ".join(f"{key} {format_value(value)}" for key, value in results.items()))
    log.info("%s", where)


def format_value(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {format_value(each)}" for key, each in value.items()) + ")"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    keep_freed_memory()
    run_script(run, parse_arguments())
