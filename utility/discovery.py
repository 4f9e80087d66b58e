"""Finds the plugins: folders below upstream/ and downstream/, of the repository and of other folders.

Names and descriptions are read from the source without running it, so that listing is quick and a broken
plugin hides no other; its own error is told when it is asked for.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from utility.errors import UserError
from utility.value_checks import nearest

KINDS = ("upstream", "downstream")
_NEEDED_FILES = {"upstream": ("expert.py", "hubconf.py"), "downstream": ("expert.py",)}
_BROKEN = "cannot be read: "


@dataclass(frozen=True)
class Plugin:
    """A model or task that can be asked for by name."""

    kind: str  # "upstream" or "downstream"
    name: str  # an upstream folder may offer several names, a function of its hubconf.py each
    folder: Path
    description: str  # one line


def find_plugins(kind: str, plugin_paths: Sequence[Path] = ()) -> dict[str, Plugin]:
    """The plugins of a kind by name, sorted: the repository's and those of DIR/upstream and DIR/downstream.

    Raises UserError if a plugin path is no folder of plugins, or if two folders offer the same name.
    """
    found: dict[str, Plugin] = {}
    folders: dict[str, Path] = {}
    for folder in _plugin_folders(kind, plugin_paths):
        # Also two folders of one name: both would be the module upstream.NAME.
        if folder.name in folders:
            raise UserError(f"two {kind} folders are called {folder.name!r}; {_rename(folders[folder.name], folder)}")
        folders[folder.name] = folder
        for plugin in _READERS[kind](folder):
            if plugin.name in found:
                other = found[plugin.name].folder
                raise UserError(f"two {kind} plugins are called {plugin.name!r}; {_rename(other, folder)}")
            found[plugin.name] = plugin
    return dict(sorted(found.items()))


def get_plugin(kind: str, name: str, plugin_paths: Sequence[Path] = ()) -> Plugin:
    """The plugin of that name. Raises UserError with the available and the nearest names if there is none."""
    plugins = find_plugins(kind, plugin_paths)
    if name in plugins:
        return plugins[name]
    near = nearest(name, plugins)
    message = f"unknown {kind} {name!r}; available: {', '.join(plugins) or 'none'}"
    message += f"; did you mean {near}?" if near else ""
    for root in _roots(plugin_paths):
        folder = root / kind / name
        missing = [file for file in _NEEDED_FILES[kind] if not (folder / file).is_file()]
        if name.isidentifier() and folder.is_dir() and missing:
            message += f"; the folder {folder} is no {kind} because it has no {' and no '.join(missing)}"
    broken = [f"{one.folder} {one.description}" for one in plugins.values() if one.description.startswith(_BROKEN)]
    raise UserError("; ".join([message, *broken]))


def import_plugin(plugin: Plugin, module: str) -> ModuleType:
    """A plugin's module, such as "expert", imported as upstream.FOLDER.expert wherever the folder lies.

    So relative imports inside the plugin work, and so do those of `utility` and `upstream.interfaces`.
    Raises UserError, from the original error, with the place in the plugin's code if it cannot be imported.
    """
    what = f"{plugin.kind} {plugin.name!r}"
    if not (plugin.folder / f"{module}.py").is_file():
        raise UserError(f"{what} has no {module}.py; expected it in {plugin.folder}")
    try:
        _reach(plugin)
        imported = importlib.import_module(f"{plugin.kind}.{plugin.folder.name}.{module}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or importlib.util.find_spec(package) is not None:  # a module in it is missing
            raise UserError(_failure(what, error, plugin.folder)) from error
        advice = f"which is not installed; install it (pip install {package})"
        raise UserError(f"{what} needs the package {package!r}, {advice}{_place(error, plugin.folder)}") from error
    except Exception as error:
        raise UserError(_failure(what, error, plugin.folder)) from error
    if Path(imported.__file__ or "").resolve().parent != plugin.folder.resolve():
        raise UserError(f"{what} in {plugin.folder} is hidden by {imported.__file__}; rename one of the folders")
    return imported


def describe_plugins(plugin_paths: Sequence[Path] = ()) -> str:
    """The text of --list: both kinds, a line for each plugin."""
    kinds = {kind: find_plugins(kind, plugin_paths) for kind in KINDS}
    width = max((len(name) for plugins in kinds.values() for name in plugins), default=0)
    lines = []
    for kind, plugins in kinds.items():
        lines.append(f"{kind} (-{kind[0]}):")
        lines += [f"  {plugin.name:{width}}  {plugin.description}" for plugin in plugins.values()] or ["  none"]
    return "\n".join(lines)


def resolve_folder_root() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


def _plugin_folders(kind: str, plugin_paths: Sequence[Path]) -> Iterator[Path]:
    """Every folder of a kind that has the files a plugin needs."""
    for root in _roots(plugin_paths):
        parent = root / kind
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            if all((folder / file).is_file() for file in _NEEDED_FILES[kind]):
                yield folder


def _roots(plugin_paths: Sequence[Path]) -> list[Path]:
    """The repository and the plugin paths, each once."""
    roots = [resolve_folder_root()]
    for given in plugin_paths:
        path = Path(given).expanduser().resolve()
        expected = "expected a folder that holds upstream/ or downstream/"
        if not path.exists():
            raise UserError(f"plugin path {given} does not exist; {expected}")
        if not any((path / kind).is_dir() for kind in KINDS):
            above = next((one.parent for one in (path, path.parent) if one.name in KINDS), None)
            advice = f"; give {above}" if above else ""
            raise UserError(f"plugin path {given} holds neither upstream/ nor downstream/; {expected}{advice}")
        roots.append(path)
    return list(dict.fromkeys(roots))


def _read_upstream(folder: Path) -> list[Plugin]:
    """A plugin for each public function of the folder's hubconf.py."""
    try:
        tree = ast.parse((folder / "hubconf.py").read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        return [Plugin("upstream", folder.name, folder, _unreadable("hubconf.py", error))]
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    if not functions:
        text = f"{_BROKEN}hubconf.py has no public function"
        return [Plugin("upstream", folder.name, folder, text)]
    return [Plugin("upstream", node.name, folder, _first_line(node)) for node in functions]


def _read_downstream(folder: Path) -> list[Plugin]:
    """The plugin that the folder is."""
    try:
        description = _first_line(ast.parse((folder / "expert.py").read_bytes()))
    except (OSError, SyntaxError, ValueError) as error:
        description = _unreadable("expert.py", error)
    return [Plugin("downstream", folder.name, folder, description)]


_READERS = {"upstream": _read_upstream, "downstream": _read_downstream}


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "(no description)").splitlines()[0].strip()


def _unreadable(file: str, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{_BROKEN}{file}, line {error.lineno}: {error.msg}"
    return f"{_BROKEN}{file}: {error}"


def _rename(one: Path, other: Path) -> str:
    return f"rename one of {one} and {other}"


def _reach(plugin: Plugin) -> None:
    """Let `import upstream.FOLDER` find a plugin that lies outside the repository."""
    package = importlib.import_module(plugin.kind)
    if resolve_folder_root() / plugin.kind not in [Path(path).resolve() for path in package.__path__]:
        place = package.__file__ or list(package.__path__)
        raise ImportError(f"another package called {plugin.kind!r} is in the way, at {place}; rename it")
    if str(plugin.folder.parent) not in package.__path__:
        package.__path__.append(str(plugin.folder.parent))
    importlib.invalidate_caches()


def _failure(what: str, error: Exception, folder: Path) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{what} could not be imported: {type(error).__name__}: {text}{_place(error, folder)}"


def _place(error: Exception, folder: Path) -> str:
    """Where in the plugin's code the error came from, as " (file:line)"."""
    if isinstance(error, SyntaxError):
        return f" ({error.filename}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(folder.resolve())]
    return f" ({inside[-1].filename}:{inside[-1].lineno})" if inside else ""
