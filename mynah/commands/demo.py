"""`make demo`: a first session on the demo speech: pretraining, and a table of what it is worth.

The table's voices and sentences are none that the pretraining has heard, nor have the weights that come with Mynah.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from mynah.commands.arguments import installed_program
from mynah.commands.arguments import run_as_process as run
from mynah.utility.experiments.shipped import shipped_weights

ROOT = Path("result/demo")
PRETRAINED = ROOT / "pretrain" / "aalbert"
TABLE = ROOT / "table"
UPSTREAMS = {
    "fbank": "fbank",
    "untrained": f"untrained:aalbert@{PRETRAINED / 'model_config.yaml'}",
    "pretrained": f"pretrained:aalbert={PRETRAINED}",
}
SHIPPED = "small"
"""The row of the weights that come with Mynah, where there are some of this name."""
# Normalized over the utterance, filter banks have the mean zero, which mean pooling cannot see through.
TASKS = {
    "speaker": "voxceleb1_speaker",
    "speaker_statistics": "voxceleb1_speaker",
    "words": "speech_commands",
}
PRETRAIN_OPTIONS = ["trainer.max_steps=600", "scheduler.num_training_steps=600", "trainer.val_check_interval=200"]
OPTIONS = ["trainer.max_steps=200", "speaker_statistics:model.pooling=statistics"]
"""Sized for six minutes on two slow cores."""


def main(program: str = "mynah demo", arguments: list[str] | None = None) -> None:
    """The program, which takes no arguments; `program` is what the user types to run it."""
    argparse.ArgumentParser(prog=program, description=__doc__).parse_args(arguments)
    started = time.monotonic()
    if ROOT.exists():
        sys.exit(f"{ROOT} exists already; remove it to run the demo again")
    run("pretrain", "-n", "aalbert", "-u", "aalbert", "-p", str(ROOT / "pretrain"), "-o", *PRETRAIN_OPTIONS)
    tasks = [f"{label}:{task}" for label, task in TASKS.items()]
    rows = ["--upstreams", *upstreams(), "--tasks", *tasks, "-o", *OPTIONS]
    run("benchmark", "-n", TABLE.name, "-p", str(ROOT), *rows)
    print(summary(time.monotonic() - started))


def upstreams() -> list[str]:
    """The table's rows; a line says if there are no weights to take the last one of."""
    if SHIPPED in shipped_weights().get("aalbert", {}):
        return [*UPSTREAMS.values(), f"shipped:aalbert={SHIPPED}"]
    print(f"\nno weights aalbert-{SHIPPED} come with this Mynah: the table is without their row")
    return list(UPSTREAMS.values())


def summary(seconds: float) -> str:
    """The demo's results, from the metrics that the runs wrote."""
    pretraining, table = read(PRETRAINED / "metrics.json"), read(TABLE / "results.json")
    chances = {score: metrics["chance"] for score, metrics in table["leaderboard"][0]["otherMetrics"].items()}
    rows = [
        ("masked reconstruction loss, before the first step", f"{pretraining['val_loss_at_start']:.0f}"),
        (f"masked reconstruction loss, after {pretraining['steps']} steps", f"{pretraining['val_loss']:.0f}"),
        *(
            (f"accuracy by chance, {table['scores'][score]['label']}", f"{chance:.1f} %")
            for score, chance in chances.items()
        ),
        ("wall time", f"{seconds / 60:.1f} min"),
        ("table and picture", f"{TABLE}/results.md, results.png"),
        ("results", f"{ROOT}/"),
        ("logs", f"{installed_program('tensorboard')} --logdir {ROOT}"),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n" + "\n".join(f"| {label:{width}} | {value}" for label, value in rows)


def read(path: Path) -> dict:
    return json.loads(path.read_text())
