"""YAML as configurations use it: numbers as people write them, the line of every key, no key twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mynah.utility.configuration.sections import shown
from mynah.utility.errors import UserError

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 100_000
"""Values of a YAML text, with those of aliases counted each time: ten lines of aliases can expand to billions."""

_TAG = "tag:yaml.org,2002:"
_FLOAT = re.compile(
    r"""^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?   # 1.  1.5  1.5e3
             |   [0-9][0-9_]*[eE][-+]?[0-9]+                 # 1e-4
             |   \.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?          # .5
             |   \.(?:inf|Inf|INF))$
       |^\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)


def read_yaml_file(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping that a YAML file holds, and the line (from 1) of each of its keys, written "a.b[0].c".

    Raises UserError, without the file's name, if it is missing, unreadable, not YAML or not a mapping.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # opening a pipe may wait for ever
            raise UserError("is not a regular file; expected a YAML file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("no such file; check the path") from None
    except IsADirectoryError:
        raise UserError("is a folder; expected a YAML file") from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text; expected a YAML file") from None
    except OSError as error:
        raise UserError(f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    data, lines = parse_yaml(text)
    if data is None:
        raise UserError("is empty; expected lines such as 'key: value'")
    if not isinstance(data, dict):
        raise UserError(f"expected a mapping (lines such as 'key: value'), got {shown(data)}")
    return data, lines


def parse_yaml(text: str) -> tuple[Any, dict[str, int]]:
    """The plain value of a YAML text, and the line of each key.

    Raises UserError with line and column for a syntax error, and for a key that is given twice.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"has {len(text)} characters, more than any configuration ({MAX_CHARACTERS} at most)")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[str, int] = {}
        _find_lines(node, "", lines, (), iter(range(MAX_VALUES)))
        return (None if node is None else loader.construct_document(node)), lines
    except RecursionError:
        raise UserError("nests more deeply than any configuration; expected sections of keys and values") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        context = f" ({error.context})" if error.context else ""
        raise UserError(f"YAML syntax error{at}: {error.problem}{context}") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # A number of thousands of digits, a date that is none, a tag that does not fit its value.
        raise UserError(f"not valid YAML: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    finally:
        if loader is not None:
            loader.dispose()


def typed_text(text: str) -> str | None:
    """A command-line value for a text field: as typed, so that 007, 1e-4 or 'a #b' stay what they are.

    Quotes around the whole are YAML's and go; null and ~ give None. Raises UserError for a list or mapping.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError:
        return text.strip()  # such as "50% @home: x", which is no YAML, but is text
    if isinstance(node, yaml.CollectionNode):
        raise UserError(f"expected text, got {text.strip()!r}; put it in quotes if text is meant")
    if node is None or (node.style is None and node.tag != f"{_TAG}null"):
        return text.strip()
    return node.value if node.style is not None else None


def dump_yaml(plain: Any) -> str:
    """The YAML text of a plain value, in the order given, which parse_yaml turns back into the same value."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Loader(yaml.SafeLoader):
    """Reads scalars by YAML 1.2: 1e-4 is a number; yes, 10:00:00 and 2024-01-01 are text, unlike in 1.1."""

    yaml_implicit_resolvers: dict[str, list] = {}  # noqa: RUF012  (PyYAML's own convention)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either YAML 1.1 or _Loader would take for something else; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("merge", re.compile(r"^<<$"), "<"),
    ("int", re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$"), "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
):
    _Loader.add_implicit_resolver(_TAG + _tag, _pattern, list(_first))
_Dumper.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


def _find_lines(
    node: yaml.Node | None, key: str, lines: dict[str, int], above: tuple, allowance: Iterator[int]
) -> None:
    """Fill `lines` with the line of every key below the node.

    above: the nodes that it lies in. allowance: as many items as there may be more values.
    """
    if next(allowance, None) is None:
        raise UserError(f"has more than {MAX_VALUES} values, those that aliases (*name) stand for included")
    if any(node is one for one in above):
        raise UserError(f"{key}: refers to itself by a YAML alias")
    above = (*above, node)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[f"{key}[{index}]"] = item.start_mark.line + 1
            _find_lines(item, f"{key}[{index}]", lines, above, allowance)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                continue  # construct_document refuses it
            line = name.start_mark.line + 1
            child = f"{key}.{name.value}" if key else name.value
            if name.value in seen and name.tag != f"{_TAG}merge":
                raise UserError(f"{child}: given twice, at lines {seen[name.value]} and {line}; keep one")
            seen[name.value] = lines[child] = line
            _find_lines(value, child, lines, above, allowance)
