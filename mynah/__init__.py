"""Mynah: self-supervised speech and video models, and the tasks that use their features.

    import mynah
    aalbert = mynah.load("aalbert", ckpt="result/pretrain/exp")

The packages `upstream`, `downstream` and `utility` are `mynah.upstream` and so on. In a clone they lie beside this
folder, which `__path__` tells the import system; in a wheel they lie in it. Importing this module imports no torch.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mynah.downstream.inference import Prediction
    from mynah.upstream.interfaces import Upstream

__version__ = "0.1.0"

_PACKAGE = Path(__file__).resolve().parent

ROOT = _PACKAGE if (_PACKAGE / "upstream").is_dir() else _PACKAGE.parent
"""The folder that holds upstream/, downstream/ and utility/: the clone, or the installed package."""

if ROOT != _PACKAGE:
    __path__.append(str(ROOT))


def load(
    name: str, ckpt: str | Path | None = None, *, plugin_paths: Sequence[str | Path] = (), **options: Any
) -> Upstream:
    """The upstream of that name, as its hub entry builds it.

    ckpt: a checkpoint's path or URL, an experiment's folder, or the name of weights that come with Mynah, such as
    "small" (`list_weights`); None for random weights. plugin_paths: folders with
    upstreams of your own, beside those of $MYNAH_PLUGIN_PATH and of installed packages. options: those of the hub
    entry, such as `num_hidden_layers=3`. A line of the logger `mynah` says which weights were loaded; it goes to
    standard error where the caller has set up no logging. Raises UserError where there is no such upstream, where a
    package that it needs is missing, or where anything given does not fit.
    """
    from mynah.plugins import build_upstream, get_plugin

    plugin = get_plugin("upstream", name, plugin_paths)
    with _visible_log():
        return build_upstream(plugin, ckpt, **options)


def pretrain(upstream: str | None = None, **options: Any) -> dict[str, Any]:
    """Pretrain an upstream: `mynah pretrain -u upstream`. options: fields of `PretrainOptions`, such as name="exp".

    Returns what metrics.json holds. Raises UserError.
    """
    from mynah.upstream import pretraining

    return pretraining.pretrain(pretraining.PretrainOptions(upstream=upstream, **options))


def train(downstream: str | None = None, **options: Any) -> dict[str, Any]:
    """Train and test a task: `mynah downstream -d downstream`. options: fields of `TaskOptions`.

        mynah.train("voxceleb1_speaker", upstream="aalbert", checkpoint="result/pretrain/exp", name="sid")

    Returns what metrics.json holds. Raises UserError.
    """
    from mynah.downstream import build, training

    return training.train(build.TaskOptions(downstream=downstream, **options))


def evaluate(trained: str | Path, split: str = "test", **options: Any) -> dict[str, Any]:
    """Metrics of a split with a trained task, an experiment's folder or a checkpoint. options: as of `train`."""
    from mynah.downstream import build, training

    return training.evaluate(build.TaskOptions(resume=trained, **options), split)


def predict(trained: str | Path, inputs: str | Path | Sequence[str | Path], **options: Any) -> Iterator[Prediction]:
    """Predictions of a trained task, one by one, for files and for those in folders; or for a single one of these.

    options: as of `train`.
    """
    from mynah.downstream import build, inference

    return inference.predict(build.TaskOptions(resume=trained, **options), inputs)


def benchmark(name: str, **options: Any) -> dict[str, Any]:
    """A table of upstreams and tasks: `mynah benchmark -n name`. A table that exists is gone on with.

        mynah.benchmark("small", upstreams=["fbank", "aalbert=result/pretrain/exp"], tasks=["emotion"], seeds=3)

    options: fields of `TableConfig`, and of `BenchmarkOptions` root, config, retry, device and plugin_paths. Returns
    what results.json holds. Raises UserError; where an experiment fails, its cell says why.
    """
    from mynah.tables.benchmark import BenchmarkOptions, benchmark_as_process

    own = {key: options.pop(key) for key in ("root", "config", "retry", "device", "plugin_paths") if key in options}
    return benchmark_as_process(BenchmarkOptions(name=name, given=options, **own))


def list_upstreams(plugin_paths: Sequence[str | Path] = ()) -> list[str]:
    """The names that `load` takes, sorted."""
    from mynah.plugins import find_plugins

    return list(find_plugins("upstream", plugin_paths))


def list_downstreams(plugin_paths: Sequence[str | Path] = ()) -> list[str]:
    """The names of the tasks, sorted."""
    from mynah.plugins import find_plugins

    return list(find_plugins("downstream", plugin_paths))


def list_weights() -> dict[str, list[str]]:
    """The names of the weights that come with Mynah, by upstream; `load(upstream, ckpt=name)` takes them."""
    from mynah.utility.experiments.shipped import shipped_weights

    return {upstream: list(names) for upstream, names in shipped_weights().items()}


@contextlib.contextmanager
def _visible_log() -> Iterator[None]:
    """Inside, the logger `mynah` writes to standard error, unless the caller has set up logging."""
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
