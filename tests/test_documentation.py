"""The commands that README files and docs show can be typed."""

import importlib
import re
import shlex

import pytest

from mynah import ROOT
from mynah.commands import COMMANDS
from mynah.plugins import get_plugin
from mynah.tables.benchmark import check_plugins
from mynah.tables.config import read_table

FOLDERS = ("docs", "downstream", "upstream", "weights")
PAGES = sorted([ROOT / "README.md", *(path for top in FOLDERS for path in (ROOT / top).rglob("*.md"))])
PROGRAM = re.compile(r"(?:run_(\w+)\.py|\bmynah (\w+))(?= |$)")


def shown_commands(text: str) -> list[tuple[str, list[str]]]:
    """(program, its arguments) of the lines of a page's code blocks that begin with a program or its launcher."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        begins = re.match(r"(    |\$ )?(python|mynah|torchrun|srun) ", line)
        match = PROGRAM.search(line) if begins else None
        if match and (match[1] or match[2]) in COMMANDS and "$" not in line[match.end() :]:  # variables of a loop
            words = shlex.split(line[match.end() :], comments=True)
            found.append((match[1] or match[2], [word for word in words if word != "..."]))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_understood_by_its_program(page):
    for program, words in shown_commands(page.read_text(encoding="utf-8")):
        command = importlib.import_module(f"mynah.commands.{program}")
        if not hasattr(command, "parse_arguments"):  # the demos take none
            continue
        try:
            arguments = command.parse_arguments(program, words)
        except SystemExit:
            pytest.fail(f"{program} does not understand: {shlex.join(words)}")
        for kind in ("upstream", "downstream"):
            name = getattr(arguments, kind, None)
            if name is not None and not name.startswith("my_"):
                get_plugin(kind, name)


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "tables").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_table_of_the_docs_could_be_begun_where_its_data_is(file, monkeypatch):
    monkeypatch.chdir(ROOT)  # its lists of phones are given from there
    table = read_table(file, {})
    assert check_plugins(table, [ROOT / "docs" / "peers"]).keys() == {column.label for column in table.tasks}


def test_commands_are_found_over_several_lines_without_their_remarks():
    text = "mynah is\n\n    python run_pretrain.py -n a \\\n        -u aalbert  # long\n$ mynah features --json\n"
    assert shown_commands(text) == [("pretrain", ["-n", "a", "-u", "aalbert"]), ("features", ["--json"])]
