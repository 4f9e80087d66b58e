"""The options of a model: from a file, or one by one."""

from pathlib import Path
from typing import Any, TypeVar

from mynah.utility.configuration.load import from_plain, load_config, merged, to_plain
from mynah.utility.configuration.sections import shown
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
    given = _with_base(path, ())
    sections = {section: given[section] for section in plain if section in given}
    if not sections:
        raise UserError(f"{path}: has none of the sections {', '.join(plain)}; its keys are {', '.join(given)}")
    return merged(plain, sections)


def _with_base(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """What a YAML file says, over what the file beside it says that its key `base` names.

    above: the files that it is the base of.
    """
    try:
        given, _ = read_yaml_file(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    base = given.pop("base", None)
    if base is None:
        return given
    if not isinstance(base, str) or path.parent / base in (*above, path):
        raise UserError(f"{path}: base: expected the name of another YAML file beside this one, got {shown(base)}")
    return merged(_with_base(path.parent / base, (*above, path)), given)


def set_option(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings."""
    *sections, last = key.split(".")
    for section in sections:
        plain = plain.setdefault(section, {})
    plain[last] = value
