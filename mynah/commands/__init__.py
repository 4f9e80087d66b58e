"""The programs: `mynah pretrain`, `mynah downstream` and so on."""

import importlib
import sys

COMMANDS = {
    "pretrain": "pretrain an upstream on raw speech or video",
    "downstream": "train a task on an upstream's features, evaluate it, or predict with it",
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
    importlib.import_module(f"mynah.commands.{given}").main(f"mynah {given.replace('_', '-')}", sys.argv[2:])
