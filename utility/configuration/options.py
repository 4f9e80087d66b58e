"""The options of a model: from a file, or one by one."""

from pathlib import Path
from typing import Any, TypeVar

from mynah.utility.configuration.load import from_plain, load_config, merged, to_plain
from mynah.utility.configuration.yaml_text import read_yaml_file
from mynah.utility.errors import UserError

Schema = TypeVar("Schema")


def flat_options(schema: type[Schema], file: str | Path | None, overrides: dict[str, Any], name: str) -> Schema:
    """The section `schema` of the plugin `name` from a YAML file of its fields, if given, and then `overrides`.

    Raises UserError with all that is wrong.
    """
    given = {} if file is None else to_plain(load_config(schema, files=[Path(file)]))
    return from_plain(schema, {**given, **overrides}, source=f"options of {name}")


def options_of_file(plain: dict[str, Any], path: Path) -> dict[str, Any]:
    """The sections of a YAML file over the same ones in `plain`; what else the file says is about training.

    Raises UserError where the file cannot be read or has none of them.
    """
    try:
        given, _ = read_yaml_file(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    sections = {section: given[section] for section in plain if section in given}
    if not sections:
        raise UserError(f"{path}: has none of the sections {', '.join(plain)}; its keys are {', '.join(given)}")
    return merged(plain, sections)


def set_option(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings."""
    *sections, last = key.split(".")
    for section in sections:
        plain = plain.setdefault(section, {})
    plain[last] = value
