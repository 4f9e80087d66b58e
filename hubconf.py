"""torch.hub entries: one per upstream, found by its folder.

    torch.hub.load("path/to/mynah", "aalbert", source="local", ckpt="last.ckpt")

The repository's packages have plain names (`utility`, `upstream`). While an entry is looked up or run they are the
repository's, whatever a caller has imported under these names; afterwards the caller's are back. So nothing in the
entries' reach may import them later, in a function: `test_hub` watches over it.
"""

# Modules rather than names of them: torch.hub.list takes every callable here for an entry.
import collections.abc
import contextlib
import logging
import pathlib
import sys
import typing

# fmt: off
dependencies = [
    "torch", "torchaudio", "torchvision", "numpy", "omegaconf", "yaml", "soundfile", "timm", "sentencepiece", "av",
]
# fmt: on

_REPOSITORY = pathlib.Path(__file__).resolve().parent
_PACKAGES = ("utility", "upstream", "downstream")


@contextlib.contextmanager
def _own_packages() -> collections.abc.Iterator[None]:
    """Inside, `utility` and its like are this repository's; outside, they are what they were before."""
    swapped = not _are_ours()
    others = {name: sys.modules.pop(name) for name in _loaded()} if swapped else {}
    sys.path.insert(0, str(_REPOSITORY))
    try:
        yield
    finally:
        sys.path.remove(str(_REPOSITORY))
        if swapped:
            for name in _loaded():
                del sys.modules[name]
            sys.modules.update(others)


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]


def _are_ours() -> bool:
    """Whether the packages of these names in use are already this repository's, as when its own scripts run."""
    loaded = [name for name in _loaded() if "." not in name]
    files = [getattr(sys.modules[name], "__file__", None) or "" for name in loaded]
    places = [pathlib.Path(file).resolve().parent for file in files]
    return bool(loaded) and places == [_REPOSITORY / name for name in loaded]


@contextlib.contextmanager
def _audible() -> collections.abc.Iterator[None]:
    """Inside, the line that says which weights were loaded is seen, also where the caller has set up no logging."""
    logger = logging.getLogger("mynah")
    if logger.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _entry(plugin: typing.Any) -> typing.Any:
    def entry(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        with _own_packages(), _audible():
            from utility.discovery import import_plugin

            return getattr(import_plugin(plugin, "hubconf"), plugin.name)(*args, **kwargs)

    entry.__name__ = entry.__qualname__ = plugin.name
    entry.__doc__ = plugin.description
    return entry


with _own_packages():
    import utility.discovery as _discovery

    globals().update({name: _entry(plugin) for name, plugin in _discovery.find_plugins("upstream").items()})
