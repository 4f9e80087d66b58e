"""The programs: `mynah pretrain`, `mynah downstream` and so on."""

import importlib
import os
import signal
import sys

COMMANDS = {
    "pretrain": "pretrain an upstream on raw speech or video",
    "downstream": "train a task on an upstream's features, evaluate it, or predict with it",
    "benchmark": "train tasks on the features of upstreams, make one table",
    "features": "show the features of frozen upstreams that are kept on disk, or remove them",
    "export": "write the weights of a pretraining run to a small file, with a card",
    "demo": "pretrain Audio ALBERT on demo speech, probe it, print a table",
    "demo_video": "pretrain on demo clips, caption them, print a table",
}


def main() -> None:
    """`mynah COMMAND ...`: the console command of the installed package, and `python -m mynah`."""
    given = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if given not in COMMANDS:
        text = "\n".join(f"  {name.replace('_', '-'):12}{what}" for name, what in COMMANDS.items())
        usage = f"usage: mynah COMMAND ...\n\n{text}\n\nmynah COMMAND --help tells more."
        if sys.argv[1:] in ([], ["-h"], ["--help"], ["help"]):
            print(usage)
            sys.exit(0 if sys.argv[1:] else 2)
        if sys.argv[1] == "--version":
            from mynah import __version__

            print(f"mynah {__version__}")
            sys.exit(0)
        print(f"error: there is no command {sys.argv[1]!r}\n{usage}", file=sys.stderr)
        sys.exit(2)
    start(given, f"mynah {given.replace('_', '-')}", sys.argv[2:])


def start(command: str, program: str, arguments: list[str] | None = None) -> None:
    """Import a program and run it; Ctrl-C during the imports, which take seconds, ends the process with one line."""
    before = signal.signal(signal.SIGINT, _leave)
    try:
        module = importlib.import_module(f"mynah.commands.{command}")
    finally:
        signal.signal(signal.SIGINT, before)
    module.main(program, arguments)


def _leave(*_: object) -> None:
    # An exception would surface as an ImportError of whatever was being imported.
    os.write(2, b"interrupted\n")
    os._exit(130)
