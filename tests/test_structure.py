"""How the code hangs together, read from its source: imports flow one way, and what must not be used is not."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("utility", "upstream", "downstream")
SCRIPTS = ("run_pretrain", "run_downstream", "run_demo", "run_demo_video", "hubconf")
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
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


def plugin_of(name: str) -> str | None:
    """The plugin folder that a dotted name lies in: upstream.aalbert.model -> upstream.aalbert."""
    parts = name.split(".")
    folder = REPOSITORY.joinpath(*parts[:2])
    inside = len(parts) > 1 and parts[0] in ("upstream", "downstream") and folder.is_dir()
    return ".".join(parts[:2]) if inside else None


def violations(source: str, module: str) -> list[str]:
    """The imports of a module that go against the flow."""
    found, home = [], plugin_of(module)
    for name in imports_of(source, module):
        top = name.split(".")[0]
        other = plugin_of(name)
        if name.startswith("(computed") and module != "utility.discovery":
            found.append(f"{name}: only discovery imports what it computes")
        elif top in SCRIPTS or top.startswith("run_"):
            found.append(f"{name}: nobody imports a script")
        elif module.startswith("utility.") and top in ("upstream", "downstream"):
            found.append(f"{name}: utility knows neither side")
        elif module.startswith("upstream.") and top == "downstream":
            found.append(f"{name}: an upstream knows no downstream")
        elif module.startswith("downstream.") and top == "upstream" and not name.startswith("upstream.interfaces"):
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


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("utility.masking", "from upstream.interfaces import SpeechUpstream"),
        ("utility.masking", "def f():\n    import downstream.features"),
        ("utility.masking", "import importlib\nimportlib.import_module('upstream')"),
        ("utility.masking", "import importlib\nimportlib.import_module(name)"),
        ("upstream.aalbert.model", "from upstream.mockingjay.model import Mockingjay"),
        ("upstream.aalbert.model", "from ..mockingjay import model"),
        ("upstream.aalbert.model", "from upstream import mockingjay"),
        ("upstream.acoustic", "from upstream.aalbert import model"),
        ("upstream.aalbert.expert", "from downstream.interfaces import DownstreamExpert"),
        ("downstream.example.expert", "from upstream.acoustic import AcousticUpstream"),
        ("downstream.example.expert", "from upstream.aalbert.model import AudioAlbert"),
        ("downstream.example.expert", "from downstream.voxceleb1_speaker.model import SpeakerClassifier"),
        ("downstream.probing", "from downstream.example.expert import DownstreamExpert"),
        ("downstream.probing", "from run_downstream import run"),
        ("utility.training", "import hubconf"),
        ("run_pretrain", "import run_downstream"),
        ("run_pretrain", "from upstream.aalbert.expert import load"),
        ("utility.training", "from tests.conftest import REPOSITORY"),
    ],
)
def test_imports_against_the_flow_are_found(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "upstream.aalbert.expert",
            "from .model import AudioAlbert\nfrom upstream.acoustic import load_acoustic_upstream",
        ),
        (
            "downstream.example.expert",
            "from upstream.interfaces import SpeechUpstream\nfrom downstream import interfaces",
        ),
        ("utility.training", "from utility.callbacks import Progress\nimport torch"),
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
