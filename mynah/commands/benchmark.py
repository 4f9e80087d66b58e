"""`mynah benchmark`, and run_benchmark.py in a clone."""

import argparse
import logging
from pathlib import Path
from typing import Any

from mynah.commands.arguments import add_machine_options, run_command
from mynah.plugins import describe_plugins
from mynah.utility.errors import UserError
from mynah.utility.training.allocator import keep_freed_memory

log = logging.getLogger("mynah")

EXAMPLES = """\
examples:
  {program} -n small --upstreams fbank aalbert=result/pretrain/exp --tasks voxceleb1_speaker speech_commands
  {program} -n small                                   # go on where it was interrupted
  {program} -n big --upstreams fbank exp:aalbert=result/pretrain/exp \\
      untrained:aalbert@result/pretrain/exp/model_config.yaml hf_speech=facebook/hubert-base-ls960 \\
      --tasks emodb:emotion speech_commands --lrs 1e-4 1e-3 1e-2 --seeds 3 \\
      -o emodb:datarc.file_path=/data/EmoDB speech_commands:datarc.file_path=/data/speech_commands_v0.01 \\
      --vary emodb:datarc.fold=1,2,3,4,5
  {program} -n big -c result/benchmark/small/table.yaml
"""


def main(program: str = "mynah benchmark", arguments: list[str] | None = None) -> None:
    """The program; `program` is what the user types to run it, `arguments` are those of the process by default."""
    keep_freed_memory()
    run_command(run, parse_arguments(program, arguments))


def parse_arguments(program: str = "mynah benchmark", arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Train tasks on the frozen features of upstreams, and make one table of the results.",
        epilog=EXAMPLES.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="print the upstreams and downstreams, a line each")

    table = parser.add_argument_group("the table")
    table.add_argument("-n", dest="name", metavar="NAME", help="name of the table; one that exists is gone on with")
    table.add_argument(
        "-p",
        dest="root",
        metavar="DIR",
        type=Path,
        default=Path("result/benchmark"),
        help="folder of the tables (default: result/benchmark)",
    )
    table.add_argument(
        "--upstreams",
        metavar="SPEC",
        nargs="+",
        action="extend",
        help="rows, each [LABEL:]UPSTREAM[=CKPT][@CONFIG.yaml], with -k and -g of run_downstream.py",
    )
    table.add_argument(
        "--tasks",
        metavar="SPEC",
        nargs="+",
        action="extend",
        help="columns, each [LABEL:]TASK[@CONFIG.yaml], with -c of run_downstream.py",
    )
    table.add_argument(
        "-c", dest="config", metavar="FILE", type=Path, help="YAML file of a table, such as table.yaml"
    )

    table.add_argument(
        "--compare",
        metavar="DIR",
        type=Path,
        nargs="+",
        action="extend",
        help="instead: the table of experiments of run_downstream.py that exist, in these folders and below them; -n "
        "writes it to a folder",
    )

    training = parser.add_argument_group("the experiments")
    training.add_argument(
        "--lrs", metavar="LR", type=float, nargs="+", help="learning rates of the head, among which dev chooses"
    )
    training.add_argument("--seeds", metavar="N", type=int, help="repetitions, with the seeds 1 to N (default: 1)")
    training.add_argument(
        "--sweep",
        choices=("first", "all"),
        help="seeds that are trained at every learning rate: the first, the others at the rate it chose (default); "
        "or all",
    )
    training.add_argument(
        "-o",
        dest="options",
        metavar="[TASK:]KEY=VALUE",
        nargs="+",
        action="extend",
        help="values of the tasks' configurations, of all tasks or of the one of that label",
    )
    training.add_argument(
        "--vary",
        metavar="[TASK:]KEY=V1,V2,...",
        nargs="+",
        action="extend",
        help="a cell of that task is the mean over these values of a key, such as emotion:datarc.fold=1,2,3,4,5",
    )
    training.add_argument("--retry", action="store_true", help="try again what failed")

    add_machine_options(parser)
    parser.set_defaults(program=program)
    return parser.parse_args(arguments)


TABLE_FIELDS = ("upstreams", "tasks", "lrs", "seeds", "sweep", "options", "vary")


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 0, or 1 where a cell has failed."""
    if arguments.list:
        print(describe_plugins(arguments.plugin_paths))
        return 0
    given: dict[str, Any] = {key: value for key in TABLE_FIELDS if (value := getattr(arguments, key)) is not None}
    if arguments.compare:
        return _compare(arguments, given)
    if not arguments.name:
        raise UserError("-n NAME is needed: the name of the table")
    from mynah.tables.benchmark import BenchmarkOptions, benchmark, is_failed

    options = BenchmarkOptions(
        name=arguments.name,
        root=arguments.root,
        config=arguments.config,
        given=given,
        retry=arguments.retry,
        device=arguments.device,
        plugin_paths=arguments.plugin_paths,
    )
    try:
        grid = benchmark(options)
    except KeyboardInterrupt:
        log.warning("what was finished is kept; to go on:\n  %s -n %s", arguments.program, arguments.name)
        raise
    _print(grid)
    return 1 if is_failed(grid) else 0


def _compare(arguments: argparse.Namespace, given: dict[str, Any]) -> int:
    from mynah.tables.benchmark import check_name, compare_experiments

    if given or arguments.config or arguments.retry:
        raise UserError("--compare makes a table of experiments that exist; leave what is to be trained out")
    if arguments.name:
        check_name(arguments.name)
    folder = arguments.root / arguments.name if arguments.name else None
    _print(compare_experiments(arguments.compare, folder, arguments.plugin_paths))
    return 0


def _print(grid: Any) -> None:
    from mynah.tables.writing import main_table

    failures: list[str] = []
    print("\n".join(main_table(grid, failures)))
    for number, reason in enumerate(failures, start=1):
        print(f"[{number}] {reason}")
