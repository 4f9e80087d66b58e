"""Rows, columns and options of a table as they are typed: [LABEL:]UPSTREAM[=CKPT][@CONFIG.yaml] and the like."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlparse

from mynah.utility.experiments.download import is_url

NAME = re.compile(r"[A-Za-z_]\w*")
YAML_SUFFIXES = (".yaml", ".yml")
UPSTREAM_FORM = "[LABEL:]UPSTREAM[=CKPT][@CONFIG.yaml], such as aalbert=result/pretrain/exp"
TASK_FORM = "[LABEL:]TASK[@CONFIG.yaml], such as speech_commands"
NOT_TELLING = ("checkpoints", "last", "best", "previous", "model_config", "pretrain_config", "config", "model")
"""Parts of paths that do not tell one model from another."""
MAX_LABEL = 80


def parse_upstream(text: str) -> dict[str, Any]:
    """A row as typed -> its fields. Raises ValueError.

    The label ends at the first ":" that comes before any "=" or "@". A checkpoint may hold all three, as URLs do;
    what follows an "@" in it is a configuration where it ends in .yaml or .yml.
    """
    label, rest = _split_label(text, UPSTREAM_FORM)
    name, mark, source = _partition(rest, "=@")
    checkpoint, config = _split_config(source) if mark == "=" else (None, source if mark else None)
    if not NAME.fullmatch(name) or checkpoint == "" or config == "":
        raise ValueError(f"expected {UPSTREAM_FORM}, got {text!r}")
    return {"label": label, "upstream": name, "checkpoint": checkpoint, "config": config}


def parse_task(text: str) -> dict[str, Any]:
    """A column as typed -> its fields. Raises ValueError."""
    label, rest = _split_label(text, TASK_FORM)
    name, mark, config = _partition(rest, "@")
    if not NAME.fullmatch(name) or (mark and not config):
        raise ValueError(f"expected {TASK_FORM}, got {text!r}")
    return {"label": label, "task": name, "config": config or None}


def split_target(text: str) -> tuple[str | None, str]:
    """ "TASK:key=value" -> ("TASK", "key=value"); "key=value" -> (None, "key=value"), whatever the value holds."""
    before, mark, rest = _partition(text, ":=")
    return (before, rest) if mark == ":" else (None, text)


def parse_values(text: str) -> tuple[str, list[str]]:
    """ "key=1,2,3" or "key=[1, 2, 3]" -> the key and its values as typed. Raises ValueError."""
    key, _, values = text.partition("=")
    found = [value.strip() for value in values.strip().removeprefix("[").removesuffix("]").split(",")]
    if not key.strip() or len(found) < 2 or not all(found) or len(set(found)) < len(found):
        raise ValueError(f"expected [TASK:]KEY=VALUE,VALUE,... with two values or more, each once, got {text!r}")
    return key.strip(), found


def upstream_labels(upstream: str, checkpoint: str | None, config: str | None) -> list[str]:
    """Labels for a row that has none, each telling more than the one before."""
    if checkpoint is None and config is None:
        return [upstream]
    parts = _telling_parts(checkpoint if checkpoint is not None else str(config))
    random = "" if checkpoint is not None else ", random weights"
    changed = f" @{_telling_parts(config)[-1]}" if checkpoint is not None and config is not None else ""
    return [f"{upstream} {'/'.join(parts[-count:])}{random}{changed}" for count in range(1, len(parts) + 1)]


def choose_labels(given: Sequence[str], candidates: Sequence[Callable[[], Iterable[str]]]) -> list[str]:
    """A label for each of several things: the given one, or where that is empty the first candidate that is free."""
    used = {folder_name(label) for label in given if label}
    chosen = []
    for label, make in zip(given, candidates, strict=True):
        if not label:
            options = [usable_label(each)[-MAX_LABEL:] for each in make()]
            numbered = (f"{options[0][: MAX_LABEL - 5]} {number}" for number in range(2, 10_000))
            label = next(each for each in [*options, *numbered] if folder_name(each) not in used)
            used.add(folder_name(label))
        chosen.append(label)
    return chosen


def folder_name(label: str) -> str:
    """A label as the name of a folder, in lower case, as some file systems do not tell cases apart."""
    return re.sub(r"[^\w.+=-]+", "-", label).strip("-.").lower() or "-"


def check_label(label: str) -> None:
    """Raise ValueError for a label that makes no name of a folder and no cell of a table."""
    if len(label) > MAX_LABEL or not label.isprintable() or not re.search(r"\w", label) or set(label) & set("|\\"):
        raise ValueError(f"label {label[:40]!r}: expected up to {MAX_LABEL} printable characters without | and \\")


def usable_label(text: str) -> str:
    """A text made of names of files, with "-" for what a label cannot hold."""
    return "".join("-" if each in "|\\" or not each.isprintable() else each for each in text)


def _split_label(text: str, form: str) -> tuple[str, str]:
    before, mark, rest = _partition(text.strip(), ":=@")
    if mark != ":":
        return "", text.strip()
    if not before.strip():
        raise ValueError(f"expected {form}, got {text!r}")
    return before.strip(), rest.strip()


def _partition(text: str, marks: str) -> tuple[str, str, str]:
    """`str.partition` at the first of several characters."""
    found = re.search(f"[{marks}]", text)
    return (text[: found.start()], found[0], text[found.end() :]) if found else (text, "", "")


def _split_config(source: str) -> tuple[str, str | None]:
    """CKPT@CONFIG.yaml -> both. Of several "@" it is the one before a file that exists, else the last."""
    if not source.lower().endswith(YAML_SUFFIXES):
        return source, None
    places = [index for index, character in enumerate(source) if character == "@"]
    if not places:
        return source, None
    place = next((each for each in places if Path(source[each + 1 :]).expanduser().is_file()), places[-1])
    return source[:place], source[place + 1 :]


def _telling_parts(source: str) -> list[str]:
    """The parts of a path, URL or id that tell it from others, without suffixes of checkpoints."""
    path = unquote(urlparse(source).path) if is_url(source) else str(Path(source).expanduser())
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", ".", "..")]
    if parts:
        parts[-1] = re.sub(r"\.(ckpt|pt|pth|yaml|yml|safetensors)$", "", parts[-1])
    return [part for part in parts if part not in NOT_TELLING] or parts or [source]
