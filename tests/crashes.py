"""Crash tests: a small run whose writes fail, or that is killed, at every write to a
file, flush to disk and rename in turn, and before and after its clusters are looked for.

    python tests/crashes.py [--every N]

After each crash the same command with -a must end in the same last.ckpt, best.ckpt and metrics.json as the run left
alone. Points are counted below all writing of Mynah (`Path.open`, `os.fsync`, `os.link`, `Path.replace`); each run is
a fork of this process, which has imported everything. The suite runs some points (`tests/test_crashes.py`).
"""

import argparse
import errno
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

KILL, FAIL = "kill", "fail"
TINY = [
    "model.hidden_size=16",
    "model.num_attention_heads=2",
    "model.intermediate_size=32",
    "model.num_hidden_layers=1",
    "dataloader.num_workers=0",
    "trainer.max_steps=6",
    "trainer.val_check_interval=4",
    "trainer.accumulate_grad_batches=2",
    "trainer.enable_progress_bar=false",
    "checkpoint.save_every_n_steps=1",
]


class _Points:
    """Counts the points at which a crash may happen, and crashes at one of them."""

    def __init__(self, at: int, how: str):
        self.at, self.how, self.count = at, how, 0
        self.clustering: list[int] = []
        """The points around k-means."""

    def __call__(self) -> None:
        self.count += 1
        if self.count != self.at:
            return
        if self.how == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "No space left on device")


class _CountedFile:
    """A file opened for writing: its first write is a point, and every hundredth, as a checkpoint takes hundreds."""

    def __init__(self, file: Any, point: _Points):
        self._file, self._point, self._writes = file, point, 0

    def write(self, data: Any) -> int:
        if self._writes % 100 == 0:
            self._point()
        self._writes += 1
        return self._file.write(data)

    def __enter__(self) -> "_CountedFile":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def count_points(at: int, how: str) -> _Points:
    """Put a point below everything that Mynah writes in this process."""
    from mynah.utility.acoustic import clusters

    points = _Points(at, how)

    def counted(function: Callable) -> Callable:
        def call(*args: Any, **options: Any) -> Any:
            points()
            return function(*args, **options)

        return call

    open_file = Path.open

    def open_counted(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = open_file(self, mode, *args, **options)
        return file if set(mode) <= set("rbt") else _CountedFile(file, points)

    def kmeans_counted(*args: Any) -> np.ndarray:
        points.clustering.append(points.count + 1)
        points()
        centroids = kmeans(*args)
        points.clustering.append(points.count + 1)
        points()
        return centroids

    kmeans, clusters.kmeans = clusters.kmeans, kmeans_counted
    Path.open = open_counted
    os.fsync, os.link, Path.replace = counted(os.fsync), counted(os.link), counted(Path.replace)
    return points


def run_in_fork(
    main: Callable, arguments: list[str], at: int = 0, how: str = KILL
) -> tuple[int, str, int, list[int]]:
    """(exit status, output, points passed, those around k-means) of a command in a fork of this process; a negative
    status is a signal."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as counted:
        child = os.fork()
        if child == 0:
            status = 1
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            points = count_points(at, how)
            try:
                main(arguments=arguments)
            except SystemExit as end:
                status = int(end.code or 0)
            finally:
                sys.stdout.flush()
                os.write(counted.fileno(), json.dumps([points.count, points.clustering]).encode())
                os._exit(status)
        _, status = os.waitpid(child, 0)
        output.seek(0)
        counted.seek(0)
        text = output.read().decode(errors="replace")
        return os.waitstatus_to_exitcode(status), text, *json.loads(counted.read() or "[0, []]")


def results(folder: Path) -> tuple[dict, dict, dict]:
    """(last.ckpt, best.ckpt, metrics.json without its times) of an experiment."""
    last, best = (torch.load(folder / "checkpoints" / name, weights_only=True) for name in ("last.ckpt", "best.ckpt"))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("seconds")
    return last, best, metrics


def differences(one: tuple[dict, dict, dict], other: tuple[dict, dict, dict]) -> Iterator[str]:
    """What is not the same in the results of two runs."""
    for name, mine, theirs in zip(("last.ckpt", "best.ckpt"), one[:2], other[:2], strict=True):
        if mine["global_step"] != theirs["global_step"]:
            yield f"{name}: step {mine['global_step']} and {theirs['global_step']}"
        for key, value in mine["state_dict"].items():
            if not torch.equal(value, theirs["state_dict"][key]):
                yield f"{name}: {key}"
        if mine["callbacks"]["SaveStates"] != theirs["callbacks"]["SaveStates"]:
            yield f"{name}: the best score"
        states = (run["optimizer_states"][0]["state"] for run in (mine, theirs))
        for state, other_state in zip(*(list(each.values()) for each in states), strict=True):
            if any(not torch.equal(value, other_state[key]) for key, value in state.items()):
                yield f"{name}: the optimizer's state"
    if one[2] != other[2]:
        yield f"metrics.json: {one[2]} and {other[2]}"


def make_corpus(root: Path) -> Path:
    """Tones in noise, a folder for each of three speakers."""
    generator = np.random.default_rng(0)
    for speaker in range(3):
        for number in range(5):
            path = root / f"speaker{speaker}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            tone = 0.3 * np.sin(2 * np.pi * 150 * (speaker + 1) * np.arange(6400) / 16000)
            soundfile.write(path, (tone + generator.normal(0, 0.01, 6400)).astype("float32"), 16000)
    return root


def commands(corpus: Path, root: Path, checkpoint: str) -> dict[str, tuple[Callable, Callable[[str], list[str]]]]:
    """{name: (program, name of an experiment -> its arguments)} of the runs that are crashed."""
    import mynah.downstream.training
    import mynah.upstream.aalbert.expert
    import mynah.upstream.melhubert.expert
    import mynah.upstream.pretraining
    import mynah.utility.training.trainer  # noqa: F401 (imported once, before the forks)
    from mynah.commands import downstream, pretrain

    data = [f"datarc.file_path={{tones: {corpus}}}", "datarc.min_timestep=1600", "datarc.max_timestep=4800"]
    small = ["dataloader.batch_size=4", "datarc.valid_fraction=0.2", "logging.pictures_every_n_steps=0"]
    task = [f"datarc.file_path={corpus}", "datarc.max_timestep=4800", "datarc.min_timestep=1600"]

    def pretraining(name: str) -> list[str]:
        return ["-n", name, "-a", "-u", "aalbert", "-p", str(root), "-o", *TINY, *data, *small]

    def clustering(name: str, *more: str) -> list[str]:
        options = [*TINY, *data, *small, "objective.clusters.num_clusters=8", *more]
        return ["-n", name, "-a", "-u", "melhubert", "-p", str(root), "-o", *options]

    def teaching(name: str) -> list[str]:
        return clustering(name, f"init.clusters={root / 'clusters-whole'}:1")

    def probing(name: str) -> list[str]:
        options = ["-n", name, "-a", "-u", "aalbert", "-k", checkpoint, "-d", "voxceleb1_speaker", "-p", str(root)]
        return [*options, "-o", *TINY[4:], *task, "dataloader.batch_size=4"]

    return {
        "pretraining": (pretrain.main, pretraining),
        "task": (downstream.main, probing),
        "clusters": (pretrain.main, clustering),
        "clusters of a model": (pretrain.main, teaching),
    }


def crash(folder: Path, every: int = 1, offset: int = 0) -> Iterator[str]:
    """Crash the runs at every so many points, in both ways; yields a line for each fault found."""
    os.environ["MYNAH_CACHE"] = str(folder / "cache")
    torch.set_num_threads(1)
    corpus = make_corpus(folder / "corpus")
    runs = folder / "runs"
    for kind, (main, arguments) in commands(corpus, runs, str(runs / "pretraining-whole")).items():
        status, output, *_ = run_in_fork(main, arguments(f"{kind}-whole"))
        if not status:  # counted in a second run, which finds the caches filled, as the crashed ones do
            status, output, number, clustering = run_in_fork(main, arguments(f"{kind}-counted"))
        if status:
            yield f"{kind}: the run left alone failed: {output}"
            return
        whole = results(runs / f"{kind}-whole")
        print(f"{kind}: {number} points", file=sys.stderr)
        for at in sorted({*clustering, *range(1 + offset, number + 1, every)}):
            for how in (KILL,) if at in clustering else (KILL, FAIL):
                name = f"{kind}-{how}-{at}"
                status, output, *_ = run_in_fork(main, arguments(name), at, how)
                if "Traceback" in output or status not in ((-signal.SIGKILL,) if how == KILL else (0, 2)):
                    yield f"{name}: status {status}: {output[-1500:]}"
                status, output, *_ = run_in_fork(main, arguments(name))
                if status or "Traceback" in output:
                    yield f"{name}: continuing it: status {status}: {output[-1500:]}"
                    continue
                yield from (f"{name}: {each}" for each in differences(whole, results(runs / name)))
                if left := [str(path) for path in (runs / name).rglob(".*.tmp")]:
                    yield f"{name}: left behind {left}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="take only every so many points")
    taken = parser.parse_args().every
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        faults = list(crash(Path(scratch), taken))
    print("\n".join(faults) or "no difference", f"({time.monotonic() - started:.0f} s)")
    sys.exit(bool(faults))
