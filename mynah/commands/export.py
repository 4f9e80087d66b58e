"""`mynah export`: the weights of a pretraining run as a small file, with a card."""

import argparse
from pathlib import Path

from mynah.commands.arguments import add_plugin_path, run_command
from mynah.utility.errors import UserError

EXAMPLES = """\
examples:
  {program} result/pretrain/exp --name small --license libri="CC BY 4.0"
  {program} result/pretrain/exp/checkpoints/best.ckpt --name small --license libri="CC BY 4.0" --overwrite
"""


def main(program: str = "mynah export", arguments: list[str] | None = None) -> None:
    """The program; `program` is what the user types to run it, `arguments` are those of the process by default."""
    run_command(run, parse_arguments(program, arguments))


def parse_arguments(program: str = "mynah export", arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Write what features need of a pretraining run to a file in half precision, beside it a card. "
        "In the folder weights/ of a clone it is found by its name: -u UPSTREAM -k NAME.",
        epilog=EXAMPLES.format(program=program),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", metavar="RUN_OR_CKPT", help="an experiment of pretraining, or one of its checkpoints"
    )
    parser.add_argument("--name", required=True, help="the weights' name; the file is UPSTREAM-NAME.safetensors")
    parser.add_argument(
        "--license",
        dest="licenses",
        metavar="DATA=TEXT",
        nargs="+",
        action="extend",
        default=[],
        help="the licence of each corpus that the run was trained on, by its name in datarc.file_path",
    )
    parser.add_argument("--to", dest="folder", metavar="DIR", type=Path, help="default: weights/ of the clone")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier file and card of the name")
    add_plugin_path(parser)
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> int:
    """Export and say what came of it; the exit status, 0."""
    from mynah.upstream.exporting import ExportOptions, export

    done = export(
        ExportOptions(
            source=arguments.source,
            name=arguments.name,
            licenses=_licenses(arguments.licenses),
            folder=arguments.folder,
            overwrite=arguments.overwrite,
            plugin_paths=tuple(arguments.plugin_paths),
        )
    )
    print(f"{done['file']}: {done['bytes'] / 1e6:.2f} MB, SHA-256 {done['sha256']}")
    print("what half precision changes of the hidden states of a fixed signal, as a share of their norm:")
    print("  " + "  ".join(f"H_{layer} {share:.2e}" for layer, share in enumerate(done["differences"])))
    print(f"{done['card']}: the card")
    return 0


def _licenses(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, mark, license_text = text.partition("=")
        if not mark or not name.strip() or not license_text.strip():
            raise UserError(f'--license {text!r}: expected DATA=TEXT, such as libri="CC BY 4.0"')
        found[name.strip()] = license_text.strip()
    return found
