"""CSV and TSV tables: read once, strictly; and the two that list files, manifests and tables of labels."""

import csv
from collections.abc import Sequence
from pathlib import Path

from mynah.utility.configuration.sections import shown
from mynah.utility.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SPLITS = ("train", "dev", "test")


def is_table(path: str | Path) -> bool:
    """Whether the name says CSV or TSV."""
    return Path(path).suffix.lower() in DELIMITERS


def read_table(
    path: str | Path, columns: Sequence[str], what: str = "table", may_be_empty: Sequence[str] = ()
) -> list[dict[str, str]]:
    """The rows as dicts, in the file's order.

    columns: those that must be there, and not be empty unless `may_be_empty` names them; others are kept as they are.
    In a CSV a value with a comma stands in double quotes; in a TSV a quote is a character as any other. what: the
    table's name in messages.
    Raises UserError for a file that cannot be read or is not UTF-8, without rows, without one of the columns, with
    two of the same name, or with a row that has more values than columns or lacks one.
    """
    return [row for _, row in _numbered_rows(path, columns, what, may_be_empty)]


def _numbered_rows(
    path: str | Path, columns: Sequence[str], what: str, may_be_empty: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """As read_table, with the number of the line that each row ends at; the header is line 1."""
    path = Path(path).expanduser().absolute()
    delimiter = DELIMITERS[path.suffix.lower()]
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, delimiter=delimiter, quoting=quoting, strict=True)
            found = table.fieldnames or []
            rows = [(table.line_num, row) for row in table]  # without those that are blank
    except FileNotFoundError:
        raise UserError(f"{what} not found: {path}; check the path") from None
    except OSError as error:
        raise UserError(f"{what} {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{what} {path} is not well-formed: expected a table in UTF-8; {error}") from error
    header = f"its columns are {', '.join(map(str, found)) or 'none'}"
    if missing := [column for column in columns if column not in found]:
        advice = "its first line must name them"
        raise UserError(f"{what} {path} has no column {' and no column '.join(missing)}; {header}; {advice}")
    named = [column for column in found if column]
    if len(set(named)) < len(named):
        raise UserError(f"{what} {path} has two columns of the same name; {header}")
    if not rows:
        raise UserError(f"{what} {path} has no rows below its header")
    for number, row in rows:
        if surplus := [value for value in row.get(None, ()) if value]:
            advice = "a value with commas must stand in double quotes" if delimiter == "," else "values have no tabs"
            problem = f"more values than the {len(found)} columns have room for, {shown(surplus[0])}; {advice}"
            raise UserError(f"{what} {path}, row {number}: {problem}")
        empty = [name for name in columns if row[name] is None or (not row[name] and name not in may_be_empty)]
        if empty:
            raise UserError(f"{what} {path}, row {number}: the {' and the '.join(empty)} is empty")
    return rows


def read_manifest(path: str | Path, columns: Sequence[str] = ("path",)) -> list[dict[str, str]]:
    """The rows of a table of files, their `path` made absolute (from the table's folder); see read_table.

    columns: those that must be there, `path` among them.
    """
    path = Path(path).expanduser().absolute()
    rows = read_table(path, columns, "manifest")
    return [{**row, "path": str(path.parent / row["path"])} for row in rows]


def read_split_table(path: str | Path, column: str) -> dict[str, tuple[str, str]]:
    """{path of the file, as in scan_corpora's utterances: (the value of `column`, the split)} of a manifest with the
    columns path, split and `column`.

    In the table's order; other columns are ignored. Raises UserError as read_manifest does, and for another split or
    a file that is listed twice, with its row.
    """
    if not is_table(path):
        raise UserError(f"{path}: expected a .csv or .tsv file with the columns path, {column}, split")
    table: dict[str, tuple[str, str]] = {}
    folder = Path(path).expanduser().absolute().parent
    for number, row in _numbered_rows(path, ("path", column, "split"), "manifest"):
        file = str(folder / row["path"])
        if row["split"] not in SPLITS:
            problem = f"the split is {row['split']!r}, but must be one of {', '.join(SPLITS)}"
            raise UserError(f"{path}, row {number}: {problem}")
        if file in table:
            raise UserError(f"{path}, row {number}: {file} is listed twice; remove one of the rows")
        table[file] = (row[column], row["split"])
    return table
