"""How the code hangs together, read from its source: imports flow one way, and what must not be used is not."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from mynah.utility import LAYERS

REPOSITORY = Path(__file__).parents[1]
if not (REPOSITORY / "hubconf.py").is_file():
    pytest.skip("the layers are those of a clone", allow_module_level=True)
PACKAGES = ("mynah", "utility", "upstream", "downstream")
SCRIPTS = ("run_pretrain", "run_downstream", "run_benchmark", "run_demo", "run_demo_video", "hubconf")
SOURCES = sorted(
    path
    for path in [
        *REPOSITORY.glob("*.py"),
        *(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")),
    ]
)
EVERYTHING = [
    *SOURCES,
    *sorted((REPOSITORY / "benchmarks").rglob("*.py")),
    *sorted((REPOSITORY / "docs").rglob("*.py")),
    *sorted((REPOSITORY / "tests").rglob("*.py")),
]


def imports_of(source: str, module: str) -> Iterator[str]:
    """The dotted names that a module's source imports, relative ones made absolute; "a.b" for `from a import b`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            first = node.args[0]
            yield str(first.value) if isinstance(first, ast.Constant) else f"(computed: {ast.unparse(first)})"


def module_of(path: Path) -> str:
    """The dotted name under which a file is imported: of upstream/acoustic.py, mynah.upstream.acoustic."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts if len(parts) == 1 or parts[0] not in PACKAGES[1:] else ("mynah", *parts))


def plugin_of(name: str) -> str | None:
    """The plugin folder that a dotted name lies in: mynah.upstream.aalbert.model -> mynah.upstream.aalbert."""
    parts = name.split(".")
    folder = REPOSITORY.joinpath(*parts[1:3])
    inside = len(parts) > 2 and parts[0] == "mynah" and parts[1] in ("upstream", "downstream") and folder.is_dir()
    return ".".join(parts[:3]) if inside else None


def layer_of(name: str) -> str | None:
    """The package, or file, of utility that a dotted name lies in: mynah.utility.audio.files -> audio."""
    parts = name.split(".")
    return parts[2] if len(parts) > 2 and parts[:2] == ["mynah", "utility"] else None


def violations(source: str, module: str) -> list[str]:
    """The imports of a module that go against the flow."""
    found, home, layer = [], plugin_of(module), layer_of(module)
    for name in imports_of(source, module):
        top = name.split(".")[0]
        side = ".".join(name.split(".")[:2])
        other = plugin_of(name)
        if name.startswith("(computed") and module not in ("mynah.plugins", "mynah.commands.__init__"):
            found.append(f"{name}: only plugins and commands are imported by computed names")
        elif top in PACKAGES[1:]:
            found.append(f"{name}: the packages are imported from mynah")
        elif top in SCRIPTS or top.startswith("run_"):
            found.append(f"{name}: nobody imports a script")
        elif layer and top == "mynah" and side != "mynah.utility":
            found.append(f"{name}: utility knows neither side")
        elif layer and layer_of(name) and LAYERS.index(layer_of(name)) > LAYERS.index(layer):
            found.append(f"{name}: {layer} comes before {layer_of(name)} in LAYERS")
        elif module.startswith("mynah.upstream.") and side == "mynah.downstream":
            found.append(f"{name}: an upstream knows no downstream")
        elif (
            module.startswith("mynah.downstream.")
            and side == "mynah.upstream"
            and not name.startswith("mynah.upstream.interfaces")
        ):
            found.append(f"{name}: a downstream sees only upstream.interfaces")
        elif other and other != home:
            found.append(f"{name}: a plugin is imported by its own files only")
        elif top in ("tests", "benchmarks"):
            found.append(f"{name}: neither tests nor benchmarks are part of the program")
    return found


def offences(source: str) -> list[str]:
    """Uses of what the code must do without."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in (
            "eval",
            "exec",
            "builtins.eval",
            "builtins.exec",
        ):
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"line {node.lineno}: bare except")
        elif isinstance(node, ast.Import):
            found += [f"line {node.lineno}: pickle" for alias in node.names if alias.name.split(".")[0] in PICKLES]
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if "*" in names:
                found.append(f"line {node.lineno}: star import")
            if (node.module or "").split(".")[0] in PICKLES and names != {"UnpicklingError"}:
                found.append(f"line {node.lineno}: pickle")
        elif isinstance(node, ast.keyword) and f"{node.arg}={ast.unparse(node.value)}" in FORBIDDEN_OPTIONS:
            found.append(f"line {node.value.lineno}: {ast.unparse(node)}")
    return found


PICKLES = ("pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve")
FORBIDDEN_OPTIONS = ("strict=False", "ignore_errors=True", "weights_only=False", "allow_pickle=True")


def top_level_imports(source: str) -> set[str]:
    """The packages that are imported as soon as the module is, TYPE_CHECKING aside."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {name.split(".")[0] for name in imports_of(ast.unparse(node), "x")}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_flow_one_way(path):
    assert violations(path.read_text(encoding="utf-8"), module_of(path)) == []


@pytest.mark.parametrize("path", EVERYTHING, ids=module_of)
def test_nothing_that_must_not_be_used_is_used(path):
    if path.name != "test_checkpoint.py":  # it writes a file that would run code, to see it refused
        assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_slow_packages_are_imported_where_they_are_used(path):
    assert not top_level_imports(path.read_text(encoding="utf-8")) & {
        "librosa",
        "matplotlib",
        "tensorboard",
        "transformers",
    }


def test_the_order_of_imports_names_every_package():
    there = {
        path.stem for path in (REPOSITORY / "utility").iterdir() if path.suffix == ".py" or list(path.glob("*.py"))
    }
    assert sorted(LAYERS) == sorted(there - {"__init__"})


def test_every_package_says_in_two_lines_what_belongs_in_it():
    for folder in (path for path in (REPOSITORY / "utility").iterdir() if list(path.glob("*.py"))):
        doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert len([line for line in doc.splitlines() if line]) == 2, folder


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mynah.utility.acoustic.masking", "from mynah.upstream.interfaces import SpeechUpstream"),
        ("mynah.utility.acoustic.masking", "def f():\n    import mynah.downstream.features"),
        ("mynah.utility.acoustic.masking", "import importlib\nimportlib.import_module('mynah.upstream')"),
        ("mynah.utility.acoustic.masking", "import importlib\nimportlib.import_module(name)"),
        ("mynah.utility.acoustic.masking", "from mynah.plugins import find_plugins"),
        ("mynah.utility.acoustic.masking", "from utility.nn.padding import pad_signals"),
        ("mynah.utility.audio.files", "from mynah.utility.training.loaders import training_loader"),
        ("mynah.utility.errors", "from mynah.utility import storage"),
        ("mynah.upstream.aalbert.model", "from mynah.upstream.mockingjay.model import Mockingjay"),
        ("mynah.upstream.aalbert.model", "from ..mockingjay import model"),
        ("mynah.upstream.aalbert.model", "from mynah.upstream import mockingjay"),
        ("mynah.upstream.acoustic", "from mynah.upstream.aalbert import model"),
        ("mynah.upstream.aalbert.expert", "from mynah.downstream.interfaces import DownstreamExpert"),
        ("mynah.downstream.example.expert", "from mynah.upstream.acoustic import AcousticUpstream"),
        ("mynah.downstream.example.expert", "from mynah.upstream.aalbert.model import AudioAlbert"),
        ("mynah.downstream.example.expert", "from mynah.downstream.voxceleb1_speaker.dataset import read_corpus"),
        ("mynah.downstream.module", "from mynah.downstream.example.expert import DownstreamExpert"),
        ("mynah.downstream.training", "from run_downstream import run"),
        ("mynah.utility.training.trainer", "import hubconf"),
        ("run_pretrain", "import run_downstream"),
        ("run_pretrain", "from mynah.upstream.aalbert.expert import load"),
        ("mynah.utility.training.trainer", "from tests.conftest import REPOSITORY"),
    ],
)
def test_imports_against_the_flow_are_found(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "mynah.upstream.aalbert.expert",
            "from .model import AudioAlbert\nfrom mynah.upstream.acoustic import load_acoustic_upstream",
        ),
        (
            "mynah.downstream.example.expert",
            "from mynah.upstream.interfaces import SpeechUpstream\nfrom mynah.downstream import interfaces",
        ),
        ("mynah.utility.training.trainer", "from mynah.utility.training.callbacks import Progress\nimport torch"),
        ("mynah.utility.training.trainer", "from mynah.utility.errors import UserError"),
    ],
)
def test_imports_with_the_flow_are_not(module, source):
    assert violations(source, module) == []


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec('1')",
        "import pickle",
        "import os, dill",
        "from pickle import loads",
        "from pickle import UnpicklingError, load",
        "from os import *",
        "try:\n    pass\nexcept:\n    pass",
        "model.load_state_dict({}, strict=False)",
        "shutil.rmtree(path, ignore_errors=True)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_what_must_not_be_used_is_found(source):
    assert len(offences(source)) == 1


def test_what_may_be_used_is_not():
    assert offences("from pickle import UnpicklingError\nmodel.eval()\nzip(a, b, strict=True)\nre.escape('*')") == []
