"""Ctrl-C at random moments of the default recipe, its data loading processes included, and resumed each time.

    python tests/interrupts.py [--times N] [--seed S]

Pretrains aalbert by its own recipe, but for a small model and few steps, once alone and once interrupted N times: as
in a terminal, the signal goes to the whole process group. Both must end in the same weights, optimizer and metrics.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

REPOSITORY = Path(__file__).parents[1]
STEPS = 200
SMALL = [
    "model.hidden_size=32",
    "model.num_attention_heads=2",
    "model.intermediate_size=64",
    "datarc.min_timestep=8000",
    "datarc.max_timestep=32000",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=40",
    "trainer.accumulate_grad_batches=2",
    "checkpoint.save_every_n_steps=20",
    "logging.pictures_every_n_steps=0",
]


def begin(name: str, root: Path, corpus: Path) -> subprocess.Popen:
    command = ["run_pretrain.py", "-n", name, "-a", "-u", "aalbert", "-p", str(root)]
    return subprocess.Popen(
        [sys.executable, *command, "-o", f"datarc.file_path={{demo: {corpus}}}", *SMALL],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def result(folder: Path) -> tuple[dict, dict]:
    """(last.ckpt, metrics.json without its times)."""
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("seconds")
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True), metrics


def equal(one: object, other: object) -> bool:
    """Whether nested values are the same, tensors to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def interrupt(root: Path, corpus: Path, times: int, generator: random.Random) -> list[str]:
    """Run to the end with so many interruptions; what went wrong."""
    faults, done = [], 0
    while True:
        process = begin("interrupted", root, corpus)
        wait = generator.uniform(0.2, 14) if done < times else None
        try:
            output, _ = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate(timeout=120)
            done += 1
        else:
            if process.returncode or done >= times:
                break
            last = root / "interrupted"
            last.rename(root / f"finished{done}")  # finished before its interruption: once more from the start
            continue
        lines = output.strip().splitlines()
        print(
            f"{done}: after {wait:.1f} s, status {process.returncode}: {lines[-1][:100] if lines else ''}", flush=True
        )
        if process.returncode not in (130, 0) or "Traceback" in output:
            faults.append(f"interruption {done}: status {process.returncode}: {output[-1500:]}")
    if process.returncode:
        faults.append(f"the end: status {process.returncode}: {output[-1500:]}")
    return faults


if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))
    from mynah.utility.demo.speech import demo_librispeech

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    corpus = demo_librispeech()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        alone = begin("alone", root, corpus)
        output, _ = alone.communicate()
        if alone.returncode:
            sys.exit(f"the run left alone failed: {output}")
        faults = interrupt(root, corpus, given.times, random.Random(given.seed))
        if not faults:
            for folder in [root / "interrupted", *root.glob("finished*")]:
                (one, one_metrics), (other, other_metrics) = result(root / "alone"), result(folder)
                for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
                    if not equal(one[key], other[key]):
                        faults.append(f"{folder.name}: {key} differs")
                if one_metrics != other_metrics:
                    faults.append(f"{folder.name}: metrics.json: {other_metrics} instead of {one_metrics}")
    print("\n".join(faults) or "no difference", f"({time.monotonic() - started:.0f} s)")
    sys.exit(bool(faults))
