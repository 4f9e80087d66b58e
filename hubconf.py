"""torch.hub entries: one per upstream, found by its folder.

    torch.hub.load("path/to/mynah", "aalbert", source="local", ckpt="last.ckpt")

is `mynah.load("aalbert", ckpt="last.ckpt")` without an installation.
"""

# Modules rather than names of them: torch.hub.list takes every callable here for an entry.
import pathlib
import sys
import typing

dependencies = ["torch", "torchaudio", "numpy", "pydantic", "yaml", "soundfile", "tqdm"]
"""What a speech upstream needs; a video upstream that misses more than that says so itself."""

_REPOSITORY = pathlib.Path(__file__).resolve().parent

# Stays on the path: where a model is unpickled, as in a worker process, its modules have to be found.
_PATH = str(_REPOSITORY / "mynah" / "on_path")
if _PATH not in sys.path:
    sys.path.insert(0, _PATH)

import mynah  # noqa: E402
import mynah.plugins as _plugins  # noqa: E402

if mynah.ROOT != _REPOSITORY:
    raise ImportError(
        f"this process already uses the Mynah of {mynah.ROOT}, so that of {_REPOSITORY} cannot be loaded beside it; "
        "load both upstreams from one of them, or use a process for each"
    )


def _entry(plugin: typing.Any) -> typing.Any:
    def entry(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
        return mynah.load(plugin.name, *args, **kwargs)

    entry.__name__ = entry.__qualname__ = plugin.name
    entry.__doc__ = plugin.description
    return entry


globals().update({name: _entry(plugin) for name, plugin in _plugins.find_plugins("upstream").items()})
