"""`make demo`: the four commands of a first session on the demo speech, and a table of what came out."""

import argparse
import json
import sys
import time
from pathlib import Path

from mynah.commands.arguments import installed_program
from mynah.commands.arguments import run_as_process as run

ROOT = Path("result/demo")
PRETRAINED = ROOT / "pretrain" / "aalbert"
TASK = "voxceleb1_speaker"
PROBES = {
    "aalbert, pretrained": ("speaker_aalbert", ["-u", "aalbert", "-k", str(PRETRAINED)]),
    "aalbert, untrained": (
        "speaker_untrained",
        ["-u", "aalbert", "-g", str(PRETRAINED / "model_config.yaml")],
    ),
    "fbank": ("speaker_fbank", ["-u", "fbank"]),
    # Normalized over the utterance, filter banks have the mean zero, which mean pooling cannot see through.
    "fbank, statistics pooling": ("speaker_fbank_statistics", ["-u", "fbank", "-o", "model.pooling=statistics"]),
}


def main(program: str = "mynah demo", arguments: list[str] | None = None) -> None:
    """The program, which takes no arguments; `program` is what the user types to run it."""
    argparse.ArgumentParser(prog=program, description=__doc__).parse_args(arguments)
    started = time.monotonic()
    if ROOT.exists():
        sys.exit(f"{ROOT} exists already; remove it to run the demo again")
    run("pretrain", "-n", "aalbert", "-u", "aalbert", "-p", str(ROOT / "pretrain"))
    for name, options in PROBES.values():
        run("downstream", "-n", name, "-d", TASK, "-p", str(ROOT / "downstream"), *options)
    print(table(time.monotonic() - started))


def table(seconds: float) -> str:
    """The demo's results, from the metrics that the runs wrote."""
    pretraining = read(PRETRAINED)
    probes = {title: read(ROOT / "downstream" / name) for title, (name, _) in PROBES.items()}
    chance = next(iter(probes.values()))["test"]["chance"]
    rows = [
        ("masked reconstruction loss, before the first step", f"{pretraining['val_loss_at_start']:.0f}"),
        (f"masked reconstruction loss, after {pretraining['steps']} steps", f"{pretraining['val_loss']:.0f}"),
        *(
            (f"speaker accuracy, {title}", f"{100 * metrics['test']['accuracy']:.1f} %")
            for title, metrics in probes.items()
        ),
        ("speaker accuracy, by chance", f"{100 * chance:.1f} %"),
        ("wall time", f"{seconds / 60:.1f} min"),
        ("results", f"{ROOT}/"),
        ("logs", f"{installed_program('tensorboard')} --logdir {ROOT}"),
    ]
    width = max(len(label) for label, _ in rows)
    return "\n" + "\n".join(f"| {label:{width}} | {value}" for label, value in rows)


def read(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())
