"""A table of labelled files: a CSV (or TSV) with the columns path, label and split."""

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from utility.errors import UserError

COLUMNS = ("path", "label", "split")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class LabelledFile:
    """A row: what is to be learned of a file, and the split it belongs to."""

    label: str
    split: str


def read_label_table(path: Path) -> dict[str, LabelledFile]:
    """{absolute path of the file: its row}, in the table's order; further columns are ignored.

    Paths in the table are absolute or relative to its folder. Raises UserError, with the line, for missing columns,
    another split, an empty label or a file that is listed twice; and for a table with fewer than two labels.
    """
    path = Path(path).expanduser().absolute()
    table: dict[str, LabelledFile] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise UserError(
                    f"{path}: no column {', '.join(missing)}; found {', '.join(reader.fieldnames or ['nothing'])}; "
                    f"the first line must name the columns {', '.join(COLUMNS)}"
                )
            for row in reader:
                name = os.path.abspath(path.parent / (row["path"] or ""))  # noqa: PTH100 (keeps links, drops "..")
                if problem := _problem(row, name in table):
                    raise UserError(f"{path}, line {reader.line_num}: {problem}")
                table[name] = LabelledFile(row["label"], row["split"])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table of {', '.join(COLUMNS)}: {error}") from error
    if len({row.label for row in table.values()}) < 2:
        raise UserError(f"{path}: at least two different labels are needed to learn to tell them apart")
    return table


def _problem(row: dict[str, str], listed: bool) -> str | None:
    if row["split"] not in SPLITS:
        return f"the split is {row['split']!r}, but must be one of {', '.join(SPLITS)}"
    if not row["path"] or not row["label"]:
        return "path and label must not be empty"
    return f"{row['path']} is listed twice; remove one of the lines" if listed else None
