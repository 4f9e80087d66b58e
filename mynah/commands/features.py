"""`mynah features`: what is kept of frozen upstreams on disk, and its removal."""

import argparse
import datetime
import json
import shutil
from pathlib import Path
from typing import Any

from mynah.commands.arguments import run_command
from mynah.utility.data.media_files import printable
from mynah.utility.errors import UserError
from mynah.utility.storage import readable_size


def main(program: str = "mynah features", arguments: list[str] | None = None) -> None:
    """The program; `program` is what the user types to run it, `arguments` are those of the process by default."""
    run_command(run, parse_arguments(program, arguments))


def parse_arguments(program: str = "mynah features", arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Show the features of frozen upstreams that features.cache=disk keeps, or remove them.",
    )
    parser.add_argument(
        "--empty",
        metavar="KEY",
        nargs="*",
        help="remove the features of these keys, of which the first few letters do; without a key, all",
    )
    parser.add_argument("--json", action="store_true", help="what is kept as JSON on standard output")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> int:
    """Print or remove; the exit status, 0."""
    from mynah.downstream.feature_store import features_dir, folders

    found = folders(features_dir())
    if arguments.empty is not None:
        _remove(_chosen(found, arguments.empty))
        return 0
    described = [describe(folder) for folder in found]
    if arguments.json:
        print(json.dumps(described, indent=2))
    else:
        for each in described:
            print(_line(each))
        total = sum(each["bytes"] for each in described)
        print(f"{len(found)} kinds of features, {readable_size(total)} in {printable(str(features_dir()))}")
    return 0


def describe(folder: Path) -> dict[str, Any]:
    """What the folder of a key holds, as plain values; None for what is not known."""
    from mynah.downstream.feature_store import ABOUT, bytes_of_folder, count_tensors, last_used

    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        used = datetime.datetime.fromtimestamp(last_used(folder)).astimezone()
    except (OSError, ValueError):
        about, used = {}, None
    about = about if isinstance(about, dict) else {}
    facts = {name: about.get(name) for name in ("upstream", "origin", "layers", "kept", "dtype", "device")}
    items, size = count_tensors(folder), bytes_of_folder(folder)
    last = used and used.isoformat(timespec="seconds")
    return {"key": folder.name, **facts, "items": items, "bytes": size, "last_used": last}


def _line(each: dict[str, Any]) -> str:
    origin = each["origin"] if isinstance(each["origin"], dict) else {}
    source = printable(str(origin.get("given", "no checkpoint")))
    layers = ",".join(map(str, each["layers"])) if isinstance(each["layers"], list) else "unknown"
    kept = f"{each['kept'] or 'unknown'} of hidden states {layers}, {each['dtype']}, {each['device']}"
    size = f"{each['items']} signals, {readable_size(each['bytes'])}  last used {each['last_used'] or 'unknown'}"
    return f"{each['key'][:12]}  {each['upstream'] or 'unknown'} ({source})  {kept}  {size}"


def _chosen(found: list[Path], keys: list[str]) -> list[Path]:
    """The folders of the keys that begin so. Raises UserError where one does not mean exactly one of them."""
    if not keys:
        return found
    chosen = []
    for key in keys:
        matching = [folder for folder in found if key and folder.name.startswith(key)]
        if len(matching) != 1:
            known = ", ".join(folder.name[:12] for folder in found) or "none"
            raise UserError(f"--empty {key}: {len(matching)} of the kept keys begin so; there are: {known}")
        chosen += matching
    return chosen


def _remove(chosen: list[Path]) -> None:
    from mynah.downstream.feature_store import bytes_of_folder

    for folder in dict.fromkeys(chosen):
        size = bytes_of_folder(folder)
        try:
            shutil.rmtree(folder)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"{folder}: cannot be removed: {reason}; see to the permissions") from error
        print(f"removed {folder.name[:12]}, {readable_size(size)}")
    if not chosen:
        print("nothing is kept")
