"""The clone's package, for an entry of sys.path that holds nothing else.

The clone's root on sys.path would also make `utility`, `tests` and so on importable, perhaps instead of a user's own
modules. So `hubconf.py` and `pip install -e` put the folder above this one there. When imported, this module replaces
itself by the package.
"""

import importlib.util
import pathlib
import sys

_folder = pathlib.Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location(
    "mynah", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
)
_module = importlib.util.module_from_spec(_spec)
sys.modules["mynah"] = _module
_spec.loader.exec_module(_module)
