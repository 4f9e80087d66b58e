"""What the two run scripts share: arguments, logging, and how they end."""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from mynah.utility.errors import UserError

log = logging.getLogger("mynah")

TRUE, FALSE = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}


def build_parser(description: str, examples: str, experiment_root: str) -> argparse.ArgumentParser:
    """A parser with the arguments that both scripts take."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="print the upstreams and downstreams, a line each")

    run = parser.add_argument_group("the run")
    run.add_argument("-n", dest="name", metavar="NAME", help="name of the experiment")
    run.add_argument(
        "-p",
        dest="root",
        metavar="DIR",
        type=Path,
        default=Path(experiment_root),
        help=f"folder of the experiments (default: {experiment_root})",
    )
    run.add_argument(
        "-e", dest="resume", metavar="DIR_OR_CKPT", help="resume from an experiment's directory or a checkpoint"
    )
    run.add_argument("-a", dest="auto_resume", action="store_true", help="resume by itself if the experiment exists")
    run.add_argument("--init-from", metavar="CKPT", help="start a new run from the weights of another")

    config = parser.add_argument_group("configuration")
    config.add_argument("-c", dest="config", metavar="FILE", type=Path, help="YAML used instead of the plugin's own")
    config.add_argument(
        "-o",
        dest="overrides",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="single values, such as trainer.max_steps=1000 datarc.file_path.mine=/data/mine",
    )
    config.add_argument("--seed", type=int, help="instead of the configuration's")

    machine = parser.add_argument_group("machine and plugins")
    machine.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    machine.add_argument(
        "--plugin-path",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="a folder with upstream/ or downstream/ plugins of your own; may be given several times",
    )
    return parser


def parse_flag(text: str) -> bool:
    """'True', 'false', ... -> bool; for argparse."""
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")


def collect_overrides(arguments: argparse.Namespace) -> list[str]:
    """The -o values, and --seed as one of them."""
    seed = [] if arguments.seed is None else [f"seed={arguments.seed}"]
    return [*arguments.overrides, *seed]


def run_script(run: Callable[[argparse.Namespace], int | None], arguments: argparse.Namespace) -> None:
    """Run to an exit status: 0 done, 2 for a user's mistake, told without a traceback, 130 when interrupted."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        status = run(arguments) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # who read the results has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at its end
        status = 1
    sys.exit(status)
