"""`mynah pretrain`, and run_pretrain.py in a clone."""

import argparse
from pathlib import Path

from mynah.commands.arguments import build_parser, run_command, run_options
from mynah.plugins import describe_plugins
from mynah.utility.training.allocator import keep_freed_memory

EXAMPLES = """\
  {program} -n exp -u aalbert                          # the demo recipe
  {program} -n exp -u aalbert -o datarc.file_path.libri=/data/LibriSpeech/train-clean-360
  {program} -e result/pretrain/exp                     # continue
  {program} -n exp -u mockingjay -c my.yaml -o trainer.devices=4 trainer.precision=bf16-mixed
"""


def main(program: str = "mynah pretrain", arguments: list[str] | None = None) -> None:
    """The program; `program` is what the user types to run it, `arguments` are those of the process by default."""
    keep_freed_memory()
    run_command(run, parse_arguments(program, arguments))


def parse_arguments(program: str = "mynah pretrain", arguments: list[str] | None = None) -> argparse.Namespace:
    parser = build_parser(program, "Pretrain an upstream on raw speech or video.", EXAMPLES, "result/pretrain")
    parser.add_argument("-u", dest="upstream", metavar="NAME", help="upstream to pretrain (see --list)")
    parser.add_argument(
        "-g",
        dest="model_config",
        metavar="FILE",
        type=Path,
        help="YAML file of the sections model, features and objective, applied after -c",
    )
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 0, or 130 where the run was stopped before its end."""
    if arguments.list:
        print(describe_plugins(arguments.plugin_paths))
        return 0
    from mynah.upstream.pretraining import PretrainOptions, pretrain

    metrics = pretrain(run_options(PretrainOptions, arguments))
    return 0 if metrics["finished"] else 130
