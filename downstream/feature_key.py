"""What features depend on: facts that together make the key of their folder on disk."""

import hashlib
import json
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mynah import ROOT, __version__
from mynah.downstream.features import UpstreamFeatures
from mynah.utility.experiments.provenance import library_versions

FORMAT = 1
"""One up whenever something else is written, or another number for the same signal."""
FRONT_ENDS = ("audio", "video", "nn")
"""Packages of utility that turn files into signals and signals into features."""


def feature_facts(features: UpstreamFeatures, dtype: str, precision: str) -> dict[str, Any]:
    """Plain facts, any other of which gives other features of the same signal.

    dtype: of the numbers that are kept. precision: the trainer's, such as 32-true or bf16-mixed.
    """
    upstream, featurizer = features.upstream, features.featurizer
    means = "means of normalized states" if featurizer.normalize else "means"
    return {
        "format": FORMAT,
        "upstream": upstream.name,
        "options": upstream.build_arguments(),
        "weights": weights_digest(upstream),
        "code": code_digest(upstream),
        "layers": featurizer.layers,
        "kept": means if featurizer.reads_mean else "frames",
        "dtype": dtype,
        "precision": f"{precision}, {torch.get_float32_matmul_precision()}",
        "device": upstream.device.type,
        "versions": {**dict(_versions_of(upstream)), "mynah": __version__, **library_versions()},
    }


def feature_key(facts: dict[str, Any]) -> str:
    """32 hexadecimal digits that stand for them."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers by name, those that are no part of checkpoints too."""
    digest = hashlib.sha256()
    for name, tensor in sorted([*module.named_parameters(), *module.named_buffers()]):
        digest.update(f"{name}\t{tensor.dtype}\t{tuple(tensor.shape)}\n".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def code_digest(module: nn.Module) -> str:
    """SHA-256 of the sources beside those of the module's classes and of the front ends, but not of libraries.

    A version tells nothing of what is being worked on: a plugin of one's own, or a clone.
    """
    folders = {ROOT / "utility" / package for package in FRONT_ENDS}
    for name in sorted({kind.__module__ for kind in _classes(module)}):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and name.partition(".")[0] not in sys.stdlib_module_names and not _is_library(file):
            folders.add(Path(file).resolve().parent)
    digest = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.glob("*.py")):
        digest.update(f"{path.name}\n".encode(errors="surrogateescape"))
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_library(file: str) -> bool:
    inside = Path(file.removeprefix(str(ROOT))).parts  # this package may itself be installed
    return "site-packages" in inside or "dist-packages" in inside


def _versions_of(module: nn.Module) -> Iterator[tuple[str, str]]:
    """(name, version) of the packages that the module's classes come from."""
    for name in sorted({kind.__module__.partition(".")[0] for kind in _classes(module)}):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _classes(module: nn.Module) -> set[type]:
    return {kind for each in module.modules() for kind in type(each).__mro__}


def _bytes_of(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
