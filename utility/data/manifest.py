"""CSV and TSV tables of audio files: one row a file, its `path` and whatever else is known of it."""

import csv
from collections.abc import Sequence
from pathlib import Path

from mynah.utility.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


def is_manifest(path: str | Path) -> bool:
    """Whether the name says CSV or TSV."""
    return Path(path).suffix.lower() in DELIMITERS


def read_manifest(path: str | Path, columns: Sequence[str] = ("path",)) -> list[dict[str, str]]:
    """The rows as dicts, in the file's order, their `path` made absolute (from the manifest's folder).

    columns: those that must be there, `path` among them; others are kept as they are.
    Raises UserError where the file cannot be read, lacks a column or a path, or has no rows.
    """
    path = Path(path).expanduser().absolute()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, delimiter=DELIMITERS[path.suffix.lower()])
            found = table.fieldnames or []
            rows = list(table)
    except FileNotFoundError:
        raise UserError(f"manifest not found: {path}; check the path") from None
    except PermissionError:
        raise UserError(f"manifest {path}: permission denied") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"manifest {path} cannot be read as a table in UTF-8: {error}") from error
    if missing := [column for column in columns if column not in found]:
        raise UserError(
            f"manifest {path} has no column {', '.join(missing)}; its columns are {', '.join(found) or 'none'}; "
            "its first line must name them"
        )
    if not rows:
        raise UserError(f"manifest {path} has no rows below its header; write one for each audio file")
    for number, row in enumerate(rows, start=2):
        if not row["path"]:
            raise UserError(f"manifest {path}, row {number}: the path is empty")
        row["path"] = str(path.parent / row["path"])
    return rows
