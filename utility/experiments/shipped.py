"""Weights that come with Mynah, by name: of `-u melhubert -k small` the file weights/melhubert-small.safetensors.

A name is a word without a dot or a slash, and means these weights wherever the command is given; `./small` is a file
or a folder of that name. A `Path` is never a name. `melhubert-small`, as the file is called, means the same
everywhere, also where another upstream is asked for.
"""

import re
from pathlib import Path

from mynah.utility.configuration.sections import nearest

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
"""The folder in a clone, and in an installed package."""
SUFFIX = ".safetensors"
CARD = ".md"
"""Beside each file its card, what there is to know of it."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")


def is_name(source: str | Path) -> bool:
    """Whether this can be the name of weights: a word of a-z, 0-9, "_" and "-"."""
    return isinstance(source, str) and _NAME.fullmatch(source) is not None


def shipped_weights() -> dict[str, dict[str, Path]]:
    """{upstream: {name: file}} of all that come with Mynah, sorted."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(WEIGHTS.glob(f"*{SUFFIX}")):
        upstream, _, name = path.stem.partition("-")
        if upstream.isidentifier() and is_name(name):
            found.setdefault(upstream, {})[name] = path
    return found


def find_shipped(source: str | Path, upstream: str | None) -> Path | None:
    """The file that a name means where weights of `upstream` are asked for; None for anything else."""
    if not is_name(source):
        return None
    everything = shipped_weights()
    own = everything.get(upstream or "", {})
    by_stem = {path.stem: path for files in everything.values() for path in files.values()}
    return own.get(str(source)) or by_stem.get(str(source))


def advice_on_name(source: str | Path, upstream: str | None) -> str:
    """What to say of weights that are not found, after "no such checkpoint"; "" where no name was given."""
    if upstream is None or not is_name(source):
        return ""
    names = list(shipped_weights().get(upstream, {}))
    near = nearest(str(source), names)
    hint = f" (did you mean {near}?)" if near else ""
    known = f"by the names {', '.join(names)}" if names else "without weights"
    return f", neither a file here nor a name of weights that come with Mynah; {upstream} comes {known}{hint}"


def describe_source(source: str | Path, upstream: str | None) -> str:
    """A checkpoint as it was given, and of a name which file it means; for the line that says what was loaded."""
    path = find_shipped(source, upstream)
    if path is None:
        return str(source)
    passed_over = f"; ./{source}, which is there too, was not taken" if Path(source).exists() else ""
    return f"{source} ({path}, which comes with Mynah{passed_over})"
