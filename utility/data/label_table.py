"""A table of labelled files: a manifest with the columns path, label and split."""

from dataclasses import dataclass
from pathlib import Path

from mynah.utility.data.manifest import is_manifest, read_manifest
from mynah.utility.errors import UserError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class LabelledFile:
    """A row: what is to be learned of a file, and the split it belongs to."""

    label: str
    split: str


def read_label_table(path: str | Path) -> dict[str, LabelledFile]:
    """{path of the file, as in scan_corpora's utterances: its row}, in the table's order; other columns are ignored.

    Raises UserError where the manifest is none (see read_manifest), for another split, an empty label or a file that
    is listed twice, with its row; and for a table with fewer than two labels.
    """
    if not is_manifest(path):
        raise UserError(f"{path}: expected a .csv or .tsv file with the columns path, label, split")
    table: dict[str, LabelledFile] = {}
    for number, row in enumerate(read_manifest(path, columns=("path", "label", "split")), start=2):
        if problem := _problem(row, row["path"] in table):
            raise UserError(f"{path}, row {number}: {problem}")
        table[row["path"]] = LabelledFile(row["label"], row["split"])
    if len({row.label for row in table.values()}) < 2:
        raise UserError(f"{path}: at least two different labels are needed to learn to tell them apart")
    return table


def _problem(row: dict[str, str], listed: bool) -> str | None:
    if row["split"] not in SPLITS:
        return f"the split is {row['split']!r}, but must be one of {', '.join(SPLITS)}"
    if not row["label"]:
        return "the label is empty"
    return f"{row['path']} is listed twice; remove one of the rows" if listed else None
