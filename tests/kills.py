"""Kill tests: processes that work on a table are killed, and two work on one at once.

    python tests/kills.py [--kills N] [--seeds N]

Each table must end as the one that was left alone: the same results.md, and the same numbers in results.csv. Every
process is a fork of this one, which has imported everything. The suite runs a small one (`test_run_benchmark.py`).
"""

import argparse
import csv
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TINY = [
    "dataloader.num_workers=0",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "scheduler.num_warmup_steps=1",
    "checkpoint.save_every_n_steps=1",
    "datarc.max_timestep=4800",
    "datarc.min_timestep=1600",
    "model.pooling=statistics",
]


BROKEN = "broken.ckpt"
"""A file beside the tables, of a row that fails."""


def begin(corpus: Path, root: Path, seeds: int) -> int:
    """Work on the table below `root` in a process group of its own; its number."""
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    output = os.open(root.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from mynah.commands import benchmark

    rows = [
        "--upstreams",
        "fbank",
        f"broken:aalbert={root.with_name(BROKEN)}",
        "--tasks",
        "speaker:voxceleb1_speaker",
    ]
    training = ["--lrs", "1e-3", "1e-1", "--seeds", str(seeds), "-o", f"speaker:datarc.file_path={corpus}", *TINY]
    try:
        benchmark.main("kills", ["-n", "t", "-p", str(root), *rows, *training])
    except SystemExit as end:
        os._exit(int(end.code or 0))
    os._exit(1)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(child: int, root: Path, finished: int, pause: float) -> None:
    """Kill the process and its experiment some time after so many experiments have finished."""
    while len(list(root.glob("t/runs/*/*/*/metrics.json"))) < finished:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.01)
    time.sleep(pause)
    os.killpg(child, signal.SIGKILL)
    wait(child)


def numbers(root: Path) -> list[dict[str, str]]:
    """results.csv without times and places."""
    with (root / "t" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key not in ("seconds", "folder")} for row in rows]


def faults(folder: Path, kills: int, seeds: int) -> Iterator[str]:
    """A line for each fault found."""
    os.environ["MYNAH_CACHE"] = str(folder / "cache")
    from mynah.tables.experiment import import_everything
    from tests.crashes import make_corpus

    import_everything()
    corpus = make_corpus(folder / "corpus")
    (folder / BROKEN).write_bytes(b"no checkpoint")
    whole, killed, shared = (folder / name for name in ("whole", "killed", "shared"))
    if (status := wait(begin(corpus, whole, seeds))) != 1:  # a cell fails
        yield f"the table left alone ended with status {status}: {whole.with_suffix('.log').read_text()}"
        return
    generator = random.Random(0)
    for kill in range(kills):
        kill_at(begin(corpus, killed, seeds), killed, min(kill, seeds), generator.uniform(0.1, 0.8))
    children = [begin(corpus, shared, seeds), begin(corpus, shared, seeds)]
    statuses = [wait(begin(corpus, killed, seeds)), *map(wait, children)]
    if statuses != [1, 1, 1]:
        yield f"statuses {statuses}: " + "\n".join(root.with_suffix(".log").read_text() for root in (killed, shared))
    for root in (killed, shared):
        text = [(each / "t" / "results.md").read_text() for each in (whole, root)]
        if text[0] != text[1]:
            yield f"{root.name}: results.md is\n{text[1]}\nand not\n{text[0]}"
        if numbers(whole) != numbers(root):
            yield f"{root.name}: results.csv has {numbers(root)}, not {numbers(whole)}"
    begun = Counter(line for line in shared.with_suffix(".log").read_text().splitlines() if line.startswith("done"))
    titles = Counter(line.partition(":")[0] for line in begun.elements())
    yield from (f"{title}: run {count} times" for title, count in titles.items() if count > 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(faults(Path(folder), arguments.kills, arguments.seeds))
    print("\n".join(found) or "no difference")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
