"""Arguments, logging and exit handling that all commands share."""

import argparse
import dataclasses
import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mynah import ROOT
from mynah.utility.errors import UserError, ignore_threads, is_lack_of_memory
from mynah.utility.experiments.options import RunOptions

log = logging.getLogger("mynah")

NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Failures of a disk, wherever they occur."""

TRUE, FALSE = {"true", "yes", "1", "on"}, {"false", "no", "0", "off"}


Options = TypeVar("Options", bound=RunOptions)


def build_parser(program: str, description: str, examples: str, experiment_root: str) -> argparse.ArgumentParser:
    """A parser with the arguments that pretraining and downstream training take.

    program: what the user types, for {program} in the examples too.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="examples:\n" + examples.format(program=program),
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
        "-e", dest="resume", metavar="DIR_OR_CKPT", help="continue from an experiment's folder or a checkpoint"
    )
    run.add_argument(
        "-a", dest="auto_resume", action="store_true", help="continue if the experiment exists, else begin it"
    )
    run.add_argument(
        "--allow-changes",
        action="store_true",
        help="continue although the data, the seed or the order of batches is another than so far",
    )
    run.add_argument(
        "--init-from",
        metavar="CKPT",
        help="start a new run from the weights of another; to pretrain, also from those of a name that --list shows",
    )

    config = parser.add_argument_group("configuration")
    config.add_argument(
        "-c",
        dest="config",
        metavar="FILE_OR_NAME",
        type=Path,
        help="YAML file instead of the plugin's own, or the name of a recipe beside that: base, demo, small, ...",
    )
    config.add_argument(
        "-o",
        dest="overrides",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="single values of the configuration, such as trainer.max_steps=1000 datarc.file_path.mine=/data/mine",
    )
    config.add_argument("--seed", type=int, help="instead of the configuration's seed")

    add_machine_options(parser)
    parser.set_defaults(program=program)
    return parser


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """The options of every program that trains: the device, and folders of plugins."""
    machine = parser.add_argument_group("machine and plugins")
    machine.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_plugin_path(machine)


def add_plugin_path(parser: argparse._ActionsContainer) -> None:
    """--plugin-path, of a parser or a group of one."""
    parser.add_argument(
        "--plugin-path",
        dest="plugin_paths",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="a folder with upstream/ or downstream/ plugins of your own; may be given several times; "
        "the environment variable MYNAH_PLUGIN_PATH adds others",
    )


def parse_flag(text: str) -> bool:
    """'True', 'false', ... -> bool; for argparse."""
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")


def run_options(options: type[Options], arguments: argparse.Namespace) -> Options:
    """The arguments as options of a run; --seed becomes the last override."""
    values = {each.name: getattr(arguments, each.name) for each in dataclasses.fields(options)}
    if arguments.seed is not None:
        values["overrides"] = [*arguments.overrides, f"seed={arguments.seed}"]
    return options(**values)


def run_command(run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> None:
    """Run to an exit status: 0 done, 2 for a user's mistake, reported without a traceback, 130 when interrupted."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        status = run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # what is left is Python's own end
        sys.excepthook, threading.excepthook = ignore_threads, lambda *_: None
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:  # the reader of the results has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python reports it at exit
        status = 1
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        reason = (str(error).strip() or "memory").splitlines()[0][:200]
        advice = "take a smaller dataloader.batch_size or model, or shorter inputs"
        print(f"error: too little memory ({reason}); {advice}", file=sys.stderr)
        status = 2
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{os.strerror(error.errno)}; free space there, then continue with -a", file=sys.stderr)
        status = 2
    sys.exit(status)


def run_as_process(command: str, *arguments: str) -> None:
    """Run `mynah COMMAND ...` as a process of its own, shown as a user would type it; exit if it fails."""
    script = ROOT / f"run_{command}.py"
    in_clone = script.is_file()
    shown = f"python {script.name}" if in_clone else f"mynah {command}"
    print(f"\n$ {shown} {' '.join(arguments)}", flush=True)
    program = [str(script)] if in_clone else ["-m", "mynah", command]
    status = _wait_for([sys.executable, *program, *arguments])
    if status:
        sys.exit(status)


def _wait_for(command: list[str]) -> int:
    """Its exit status. Ctrl-C, which reaches it too, is left to it: it saves, and says how to go on."""
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def installed_program(name: str) -> str:
    """The command that starts a program of this environment, as short as it can be written here."""
    path = Path(sys.executable).with_name(name)
    if shutil.which(name) == str(path):
        return name
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
