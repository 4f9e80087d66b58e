"""`make demo-video`: pretrain, fine-tune and test a captioner on moving shapes, beside two controls, and use it."""

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mynah.commands.arguments import installed_program
from mynah.commands.arguments import run_as_process as run
from mynah.utility.captions.corpus import CaptionCorpusConfig, CaptionedClip, read_captioned_clips
from mynah.utility.captions.scores import caption_scores
from mynah.utility.demo.video import COLORS, MOTIONS, SHAPES, Combination, demo_combination, demo_vatex

ROOT = Path("result/demo_video")
PRETRAINED = ROOT / "pretrain" / "vidswin_albert"
CAPTIONER = ROOT / "downstream" / "caption"
SCORES = {"BLEU-4": "bleu_4", "METEOR": "meteor", "ROUGE-L": "rouge_l", "CIDEr": "cider"}
"""By their names in a table, those of metrics.json."""
NUM_SHOWN = 3


def main(program: str = "mynah demo-video", arguments: list[str] | None = None) -> None:
    """The program, which takes no arguments; `program` is what the user types to run it."""
    argparse.ArgumentParser(prog=program, description=__doc__).parse_args(arguments)
    started = time.monotonic()
    if ROOT.exists():
        sys.exit(f"{ROOT} exists already; remove it to run the demo again")
    with ThreadPoolExecutor(1) as pool:
        frequent = pool.submit(score_most_frequent)  # starts Java, on the core that a starting run leaves free
        run("pretrain", "-n", PRETRAINED.name, "-u", "vidswin_albert", "-p", str(PRETRAINED.parent))
        downstream = ["-n", CAPTIONER.name, "-u", "vidswin_albert", "-d", "vatex_caption", "-k", str(PRETRAINED)]
        run("downstream", *downstream, "-f", "-p", str(CAPTIONER.parent))
        run("downstream", "-m", "evaluate", "-e", str(CAPTIONER), "-o", "features.zeroed=true")
        clips = clips_of("test")
        shown = [clip.path for clip in clips[:: len(clips) // NUM_SHOWN][:NUM_SHOWN]]
        pictures = str(ROOT / "pictures")
        run("downstream", "-m", "inference", "-e", str(CAPTIONER), "--pictures", pictures, "--input", *shown)
        print(table(len(clips), *frequent.result(), time.monotonic() - started))


def table(num_clips: int, frequent: str, scores_of_frequent: dict[str, float], seconds: float) -> str:
    """Scores on clips of combinations that training has never shown, as Markdown."""
    model, zeroed = predictions_of(CAPTIONER / "test"), predictions_of(CAPTIONER / "test_zeroed")
    said = {
        "the model": (model, read_json(CAPTIONER / "test" / "metrics.json")),
        "most frequent caption": (dict.fromkeys(model, frequent), scores_of_frequent),
        "video zeroed": (zeroed, read_json(CAPTIONER / "test_zeroed" / "metrics.json")),
    }
    lines = [["", *SCORES, "right"]]
    for title, (captions, scores) in said.items():
        values = [f"{scores[key]:.3f}" if key in scores else "-" for key in SCORES.values()]
        lines.append([title, *values, f"{100 * share_right(captions):.0f} %"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    pretraining = read_json(PRETRAINED / "metrics.json")
    losses = [pretraining[key] for key in ("val_loss_at_start", "val_loss")]
    return "\n".join(
        [
            "",
            f"{num_clips} test clips, of combinations of color, shape and motion that training never showed",
            "",
            *rows,
            "",
            "right: color, shape and motion are all named, and no other",
            f"most frequent caption: {frequent!r}",
            "masked words' loss in pretraining: {:.2f} -> {:.2f}".format(*losses),
            f"wall time: {seconds / 60:.1f} min; results and pictures in {ROOT}/",
            f"logs: {installed_program('tensorboard')} --logdir {ROOT}",
        ]
    )


def predictions_of(folder: Path) -> dict[str, str]:
    """What a test said of each clip."""
    clips = read_json(folder / "predictions.json")["predictions"]
    return {clip["name"]: clip["prediction"] for clip in clips}


def score_most_frequent() -> tuple[str, dict[str, float]]:
    """The most frequent of the training captions, and the scores of saying it of every test clip, as metrics.json
    names them."""
    [(frequent, _)] = Counter(text for clip in clips_of("train") for text in clip.captions).most_common(1)
    references = {clip.name: list(clip.captions) for clip in clips_of("test")}
    scores = caption_scores(dict.fromkeys(references, frequent), references).scores
    return frequent, {key: scores[name] for name, key in SCORES.items() if name in scores}


def clips_of(split: str) -> list[CaptionedClip]:
    return read_captioned_clips(CaptionCorpusConfig(file_path=str(demo_vatex())), split, None).clips


def share_right(said: dict[str, str]) -> float:
    """The share of the captions that name the clip's color, shape and motion, and no other of them."""
    return sum(names_all(caption, demo_combination(name)) for name, caption in said.items()) / len(said)


def names_all(caption: str, shown: Combination) -> bool:
    words = caption.split()
    colors, shapes = [word for word in words if word in COLORS], [word for word in words if word in SHAPES]
    motions = [motion for motion, phrases in MOTIONS.items() if any(phrase in caption for phrase in phrases)]
    return (colors, shapes, motions) == ([shown.color], [shown.shape], [shown.motion])


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
