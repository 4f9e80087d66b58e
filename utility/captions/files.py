"""Files that tell what is to be seen in which video: VATEX's JSON, and plain tables of video and caption."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mynah.utility.configuration.sections import shown
from mynah.utility.data.tables import read_table
from mynah.utility.errors import UserError

log = logging.getLogger("mynah")

LANGUAGES = {"en": "enCap", "zh": "chCap"}
"""The keys of VATEX's captions."""

FORMATS = (
    'VATEX\'s JSON ([{"videoID": ..., "enCap": [...]}, ...]), JSON ([{"video": ..., "caption": ...}, ...]), '
    "or CSV or TSV with the columns video and caption"
)


def read_captions(path: Path, language: str) -> dict[str, list[str]]:
    """{video: its captions} in the file's order, one caption or more each; whitespace in them is single spaces.

    video: as the file has it, VATEX's `videoID` or a file name. language: a key of LANGUAGES; the plain tables do not
    tell theirs and are taken as they are.
    Raises UserError for a file that is missing, not of FORMATS, incomplete, or without captions in the language.
    """
    path = Path(path)
    rows = READERS.get(path.suffix.lower(), _json_rows)(path, language)
    captions: dict[str, list[str]] = {}
    for video, caption in rows:
        text = caption.encode("utf-8", "replace").decode()  # halves of surrogate pairs are no characters
        if text := " ".join(text.split()):
            captions.setdefault(video, []).append(text)
    if not captions:
        raise UserError(f"{path} holds no captions; expected {FORMATS}")
    if silent := list(dict.fromkeys(video for video, _ in rows if video not in captions)):
        log.warning("%s: %d videos have no captions and are left out, such as %s", path, len(silent), silent[0])
    return captions


def _json_rows(path: Path, language: str) -> list[tuple[str, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise UserError(f"{path}: expected a list of mappings, got {shown(content)}; expected {FORMATS}")
    if any("videoID" in entry for entry in content):
        return _vatex_rows(path, content, language)
    return [
        (_text(path, number, entry, "video"), _text(path, number, entry, "caption"))
        for number, entry in enumerate(content)
    ]


def _table_rows(path: Path, language: str) -> list[tuple[str, str]]:
    rows = read_table(path, ("video", "caption"), "captions", may_be_empty=["caption"])
    return [(row["video"], row["caption"]) for row in rows]


READERS: dict[str, Callable[[Path, str], list[tuple[str, str]]]] = {
    ".json": _json_rows,
    ".csv": _table_rows,
    ".tsv": _table_rows,
}
"""Suffix of a file of captions -> its reader, from path and language to (video, caption) rows; JSON for any other."""


def _vatex_rows(path: Path, content: list[dict[str, Any]], language: str) -> list[tuple[str, str]]:
    key = LANGUAGES[language]
    if not any(key in entry for entry in content):
        there = [other for other, its_key in LANGUAGES.items() if any(its_key in entry for entry in content)]
        hint = f"; it has {' and '.join(there)}: set datarc.language, or name a file that has them" if there else ""
        raise UserError(f"{path}: no captions in language {language} (key {key}){hint}")
    rows = []
    for number, entry in enumerate(content):
        video, captions = _text(path, number, entry, "videoID"), entry.get(key)
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            raise UserError(f"{path}, entry {number} ({video}): {key} must be a list of texts, got {shown(captions)}")
        rows += [(video, caption) for caption in captions or [""]]
    return rows


def _text(path: Path, number: int, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        given = f"got {shown(value)}" if key in entry else f"it has only {', '.join(map(str, entry)) or 'nothing'}"
        raise UserError(f"{path}, entry {number}: {key} must be a text, {given}; expected {FORMATS}")
    return value


def _unreadable(path: Path, error: Exception) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"captions not found: {path}; check the path")
    if isinstance(error, OSError):
        return UserError(f"captions {path} cannot be read: {error.strerror}")
    return UserError(f"captions {path} are not well-formed: {error}; expected {FORMATS}")
