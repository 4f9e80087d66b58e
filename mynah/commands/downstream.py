"""`mynah downstream`, and run_downstream.py in a clone."""

import argparse
import contextlib
import json
import logging
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mynah.commands.arguments import build_parser, parse_flag, run_command, run_options
from mynah.plugins import describe_plugins
from mynah.utility.data.media_files import printable
from mynah.utility.errors import UserError
from mynah.utility.training.allocator import keep_freed_memory

log = logging.getLogger("mynah")

SPLITS = ("train", "dev", "test")

EXAMPLES = """\
  {program} -n sid -u aalbert -d voxceleb1_speaker -k result/pretrain/exp
  {program} -n sid_fbank -u fbank -d voxceleb1_speaker -o datarc.file_path=/data/VoxCeleb1
  {program} -n sid_ft -u aalbert -d voxceleb1_speaker -k result/pretrain/exp -f
  {program} -n cap -u vidswin_albert -d vatex_caption -k result/pretrain/clips -f
  {program} -m evaluate -e result/downstream/sid --split dev
  {program} -m inference -e result/downstream/sid --input a.wav folder/
"""


def main(program: str = "mynah downstream", arguments: list[str] | None = None) -> None:
    """The program; `program` is what the user types to run it, `arguments` are those of the process by default."""
    keep_freed_memory()
    run_command(run, parse_arguments(program, arguments))


def parse_arguments(program: str = "mynah downstream", arguments: list[str] | None = None) -> argparse.Namespace:
    description = "Train a task on an upstream's features, evaluate it, or predict with it."
    parser = build_parser(program, description, EXAMPLES, "result/downstream")
    task = parser.add_argument_group("upstream and task")
    task.add_argument("-u", dest="upstream", metavar="NAME", help="upstream (see --list)")
    task.add_argument("-d", dest="downstream", metavar="NAME", help="task (see --list)")
    task.add_argument(
        "-k",
        dest="checkpoint",
        metavar="CKPT",
        help="the upstream's weights: a checkpoint, experiment or URL, or a name that --list shows",
    )
    task.add_argument(
        "-g", dest="model_config", metavar="FILE", type=Path, help="YAML file of the upstream's model configuration"
    )
    task.add_argument(
        "-t",
        dest="pretrain_config",
        metavar="FILE",
        type=Path,
        help="the same from a whole pretraining configuration, of which only the model is used",
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
        "-l", dest="layer", metavar="LAYER", type=int, help="one hidden state instead of a weighted sum of all"
    )
    mode = parser.add_argument_group("mode")
    mode.add_argument("-m", dest="mode", choices=tuple(MODES), default="train")
    mode.add_argument("--split", choices=SPLITS, help="the split to evaluate with -m evaluate (default: test)")
    mode.add_argument(
        "--input", metavar="FILE_OR_FOLDER", nargs="+", action="extend", help="what to predict with -m inference"
    )
    mode.add_argument(
        "--pictures", metavar="FOLDER", type=Path, help="with -m inference: write a picture of each prediction there"
    )
    mode.add_argument("--json", action="store_true", help="results as JSON on standard output")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 0; 130 where training was stopped before its end; 1 where an input could not be read."""
    if arguments.list:
        print(describe_plugins(arguments.plugin_paths))
        return 0
    for flag, mode in (("input", "inference"), ("pictures", "inference"), ("split", "evaluate")):
        if getattr(arguments, flag) is not None and arguments.mode != mode:
            raise UserError(f"--{flag} needs -m {mode}, but the mode is -m {arguments.mode}; give -m {mode}")
    return MODES[arguments.mode](arguments)


def _train(arguments: argparse.Namespace) -> int:
    from mynah.downstream.build import TaskOptions
    from mynah.downstream.training import train

    options = run_options(TaskOptions, arguments)
    metrics = train(options)
    if metrics["finished"]:
        _print_metrics(arguments, metrics)
    return 0 if metrics["finished"] else 130


def _evaluate(arguments: argparse.Namespace) -> int:
    from mynah.downstream.build import TaskOptions
    from mynah.downstream.training import evaluate

    _print_metrics(arguments, evaluate(run_options(TaskOptions, arguments), arguments.split or "test"))
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from mynah.downstream.build import TaskOptions
    from mynah.downstream.inference import predict

    if not arguments.input:
        raise UserError("-m inference needs --input FILE_OR_FOLDER ...")
    done = failed = 0
    with _printer(arguments.json) as show:
        for prediction in predict(run_options(TaskOptions, arguments), arguments.input, arguments.pictures):
            if prediction.error is not None:
                log.warning("skipped %s", prediction.error)
                failed += 1
            else:
                show(prediction)
                done += 1
    if failed and done + failed > 1:
        log.warning("%d of %d inputs were skipped", failed, done + failed)
    return 1 if failed else 0


@contextlib.contextmanager
def _printer(as_json: bool) -> Iterator[Callable[[Any], None]]:
    """A function that prints a prediction at once: as a line, or in a JSON list, which is ended in any case."""
    printed = 0

    def show(prediction: Any) -> None:
        nonlocal printed
        if not as_json:
            print(f"{printable(str(prediction.path))}: {prediction.text}", flush=True)
            return
        text = json.dumps({"file": str(prediction.path), **prediction.result}, indent=2)
        print(",\n" if printed else "[\n", textwrap.indent(text, "  "), sep="", end="", flush=True)
        printed += 1

    try:
        yield show
    finally:
        if as_json:
            print("\n]" if printed else "[]", flush=True)


MODES = {"train": _train, "evaluate": _evaluate, "inference": _predict}


def _print_metrics(arguments: argparse.Namespace, metrics: dict[str, Any]) -> None:
    if arguments.json:
        print(json.dumps(metrics, indent=2))
    else:
        print("  ".join(f"{key} {_format(value)}" for key, value in metrics.items()))


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_format(each)}" for key, each in value.items()) + ")"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
