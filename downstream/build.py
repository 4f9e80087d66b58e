"""A task on an upstream, built from options or from a checkpoint."""

import inspect
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mynah.downstream.interfaces import DownstreamConfig, DownstreamExpert
from mynah.downstream.model import DownstreamModel, describe_upstream
from mynah.plugins import Plugin, build_upstream, get_plugin, import_plugin
from mynah.utility.configuration.load import from_plain, load_recipe, to_plain
from mynah.utility.configuration.recipes import find_recipe
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, load_weights, locate_checkpoint, read_checkpoint
from mynah.utility.experiments.folder import Experiment, open_experiment
from mynah.utility.experiments.options import RunOptions
from mynah.utility.experiments.provenance import checkpoint_origin
from mynah.utility.training.config import refuse_other_model, refuse_other_optimizer
from mynah.utility.training.identity import flatten

log = logging.getLogger("mynah")


@dataclass(frozen=True, kw_only=True)
class TaskOptions(RunOptions):
    """What `train`, `evaluate` and `predict` take."""

    upstream: str | None = None
    """-u: the upstream's name."""
    downstream: str | None = None
    """-d: the task's name."""
    checkpoint: str | Path | None = None
    """-k: the upstream's checkpoint, experiment or URL, or the name of weights that come with Mynah."""
    pretrain_config: Path | None = None
    """-t: a whole pretraining configuration, of which the model's sections are used; as -g."""
    fine_tune: bool | None = None
    """-f: whether the upstream is trained too."""
    selection: str | None = None
    """-s: hidden_states or last_hidden_state."""
    layer: int | None = None
    """-l: one hidden state instead of a weighted sum of all."""
    root: Path = Path("result/downstream")
    program: str = "mynah downstream"


@dataclass(frozen=True)
class Task:
    """A model, and what it was built from."""

    name: str
    """The task's name."""
    model: DownstreamModel
    config: Any
    """An instance of the expert's `Config`."""
    experiment: Experiment
    origin: dict[str, str] | None = None
    """Which checkpoint the upstream came from, as `checkpoint_origin` says it."""


def build_new(options: TaskOptions, experiment: Experiment) -> Task:
    """A task of a new run: the upstream of -u and -k, the expert of -d and its configuration."""
    import torch

    for flag, value in (("-u", options.upstream), ("-d", options.downstream)):
        if not value:
            raise UserError(f"{flag} NAME is needed (see --list)")
    if options.model_config and options.pretrain_config:
        raise UserError("-g and -t both give the upstream's model configuration; give one of them")
    upstream_plugin = get_plugin("upstream", options.upstream, options.plugin_paths)
    plugin = get_plugin("downstream", options.downstream, options.plugin_paths)
    expert_class = import_expert(plugin)
    config = _configure(options, plugin, expert_class)
    torch.manual_seed(config.seed)  # an upstream without a checkpoint draws its weights
    upstream = build_upstream(upstream_plugin, **_upstream_options(options))
    _check_rebuilding(upstream_plugin, upstream)
    if options.fine_tune and not any(True for _ in upstream.parameters()):
        raise UserError(f"-f: upstream '{upstream.name}' has no weights to train; leave -f out")
    if upstream.modality != expert_class.modality:
        raise UserError(
            f"upstream '{upstream.name}' reads {upstream.modality}, but task '{options.downstream}' needs "
            f"{expert_class.modality}; choose another of them (see --list)"
        )
    if not expert_class.has_data(config):
        log.info("no data configured (datarc.file_path): this is the demo recipe, on data made for it")
        _use_demo_data(expert_class, config, _configure(TaskOptions(), plugin, expert_class))
    torch.manual_seed(config.seed)
    expert = expert_class(describe_upstream(upstream), config, folder=experiment.folder)
    model = DownstreamModel(upstream, expert, config.features, bool(options.fine_tune))
    if options.init_from is not None:
        start = read_checkpoint(options.init_from, "downstream", options.upstream)
        load_weights(model, start["state_dict"], options.init_from)
        log.info("initialized from %s (step %d)", options.init_from, start[METADATA]["step"])
    return Task(
        options.downstream, model, config, experiment, checkpoint_origin(options.checkpoint, options.upstream)
    )


def _use_demo_data(expert_class: type, config: Any, default: Any) -> None:
    """Point the configuration at the demo's data.

    default: the task's own configuration. Raises UserError where the demo would replace what -c or -o says of data.
    """
    given, own = (to_plain(each).get("datarc", {}) for each in (config, default))
    expert_class.use_demo_data(config)
    demo = to_plain(config).get("datarc", {})
    lost = [f"datarc.{key}" for key in given if given[key] not in (own.get(key), demo[key])]
    if lost:
        raise UserError(
            "datarc.file_path: missing; without it the task runs on demo data, "
            f"for which {', '.join(lost)} cannot be given"
        )


def _check_rebuilding(plugin: Plugin, upstream: Any) -> None:
    """Raise UserError where a checkpoint could not be loaded again: now rather than after the training."""
    where = f"{plugin.folder / 'expert.py'}: build_arguments of upstream '{upstream.name}'"
    try:
        again = build_upstream(plugin, **upstream.build_arguments())
    except Exception as error:  # whatever a plugin raises
        raise UserError(
            f"{where} must return the arguments of its hub entry that build the same model without its checkpoint "
            f"(upstream/README.md), but building it by them failed: {type(error).__name__}: {error}"
        ) from error
    shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (upstream, again)]
    if shapes[0] != shapes[1]:
        raise UserError(f"{where} builds a model of other weights; it must give every option that these depend on")


def rebuild(options: TaskOptions, experiment: Experiment) -> Task:
    """The task in the checkpoint `experiment.resume_from`, with its weights; overrides go over its configuration."""
    source = experiment.resume_from
    checkpoint = read_checkpoint(source, "downstream")
    metadata = checkpoint[METADATA]
    _check_agreement(options, source, metadata)
    upstream_plugin = get_plugin("upstream", metadata["upstream"], options.plugin_paths)
    task_plugin = get_plugin("downstream", metadata["downstream"], options.plugin_paths)
    expert_class = import_expert(task_plugin)
    config = from_plain(expert_class.Config, metadata["task_config"], str(source), options.overrides)
    refuse_other_optimizer(config, metadata["task_config"], source)
    refuse_other_model(config, metadata["task_config"], source)
    if options.auto_resume and options.config is not None:
        _tell_other_values(options, metadata["task_config"], _configure(options, task_plugin, expert_class))
    upstream = build_upstream(upstream_plugin, **metadata["config"])
    try:
        info = describe_upstream(upstream)
        expert = expert_class(info, config, state=metadata["task_state"], folder=experiment.folder)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{source}: task '{metadata['downstream']}' cannot be built from the state that it holds "
            f"({type(error).__name__}: {error}); was it written by another version of the task?"
        ) from error
    model = DownstreamModel(upstream, expert, config.features, metadata["fine_tune"])
    load_weights(model, checkpoint["state_dict"], source)
    return Task(metadata["downstream"], model, config, experiment, metadata.get("upstream_checkpoint"))


def _tell_other_values(options: TaskOptions, plain: dict[str, Any], asked: DownstreamConfig) -> None:
    """A warning where -c, repeated with -a, asks for other values than the run was begun with, which it keeps."""
    own = dict(flatten(plain, ""))
    others = [key for key, value in flatten(to_plain(asked), "") if key in own and own[key] != value]
    if others := [key for key in others if not key.startswith("datarc.")]:
        log.warning(
            "-c %s says otherwise (%s): the run goes on as it was begun", options.config, ", ".join(others[:5])
        )


def find_trained(options: TaskOptions, writes: bool) -> Experiment:
    """The trained experiment that -e or -n names, at its best checkpoint.

    writes: whether results are written into the experiment's folder; if not, the checkpoint may lie anywhere.
    """
    source = options.resume or (Path(options.root) / options.name if options.name else None)
    if source is None:
        raise UserError("a trained task needs -e DIR_OR_CKPT, its experiment or checkpoint")
    source = Path(source).expanduser()
    best = source / "checkpoints" / "best.ckpt"
    found = str(best if best.is_file() else source)
    if Path(found).is_dir() and not (Path(found) / "checkpoints").is_dir():
        locate_checkpoint(found)  # says what is missing
    if writes:
        return open_experiment(Path(options.root), options.name, found)
    checkpoint = locate_checkpoint(found)
    return Experiment(checkpoint.parent, checkpoint)


def import_expert(plugin: Plugin) -> type[DownstreamExpert]:
    """The task's DownstreamExpert. Raises UserError where it is missing or unfinished."""
    expert_class = getattr(import_plugin(plugin, "expert"), "DownstreamExpert", None)
    source = plugin.folder / "expert.py"
    if expert_class is None:
        raise UserError(f"{source} defines no class DownstreamExpert; downstream/interfaces.py says what it must be")
    if missing := sorted(getattr(expert_class, "__abstractmethods__", ())):
        raise UserError(f"{source}: its DownstreamExpert lacks {', '.join(missing)}; see downstream/interfaces.py")
    try:
        inspect.signature(expert_class.predict).bind("self", "features", "lengths", "signals")
    except TypeError as error:
        raise UserError(
            f"{source}: predict is called with features, lengths and signals, but does not take them ({error}); see "
            "downstream/interfaces.py"
        ) from error
    return expert_class


def _configure(options: TaskOptions, plugin: Plugin, expert_class: type[DownstreamExpert]) -> DownstreamConfig:
    """-c, a file or recipe, or the task's YAML, then -o, then -s and -l; the demo recipe where they name no data."""
    overrides = list(options.overrides)
    if options.selection:
        overrides.append(f"features.selection={options.selection}")
        if options.layer is None:  # a layer that the task's own file chooses would contradict it
            overrides.append("features.layer=null")
    if options.layer is not None:
        overrides.append(f"features.layer={options.layer}")
    file, demo = find_recipe(options.config, plugin.folder / "config.yaml")
    return load_recipe(
        expert_class.Config, files=[file], overrides=overrides, has_data=expert_class.has_data, demo=demo
    )


def _upstream_options(options: TaskOptions) -> dict[str, Any]:
    """The hub entry's arguments that -k, -g and -t stand for."""
    given = {"ckpt": options.checkpoint, "config": options.model_config or options.pretrain_config}
    return {key: value for key, value in given.items() if value is not None}


def _check_agreement(options: TaskOptions, source: Path, metadata: dict[str, Any]) -> None:
    """Raise UserError for an option that is not what the checkpoint `source` was trained with."""
    features = metadata["task_config"].get("features")
    features = features if isinstance(features, dict) else {}  # else the configuration's schema says what is wrong
    pairs = {
        "-u": (options.upstream, metadata["upstream"]),
        "-d": (options.downstream, metadata["downstream"]),
        "-f": (options.fine_tune, metadata["fine_tune"]),
        "-s": (options.selection, features.get("selection")),
        "-l": (options.layer, features.get("layer")),
    }
    for flag, (given, own) in pairs.items():
        if given is not None and given != own:
            raise UserError(f"{flag} {given}: {source} was trained with {own}; leave {flag} out, or start a new run")
    origin, given = metadata.get("upstream_checkpoint"), options.checkpoint
    if options.auto_resume and given is not None and origin is not None:
        now = checkpoint_origin(given, metadata["upstream"])
        if now.get("sha256", now) != origin.get("sha256", origin):
            raise UserError(
                f"-k {given}: {source} was trained on the features of another checkpoint, {origin['given']} (SHA-256 "
                f"{origin.get('sha256', 'unknown')[:12]}..., now {now.get('sha256', 'unknown')[:12]}...); leave -k "
                "out, or start a new run with -n"
            )
    options.refuse_new_run_options(source, ("-c", "-k", "-g", "-t", "--init-from"))
