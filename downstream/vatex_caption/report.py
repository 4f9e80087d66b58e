"""Evaluation of a split's captions: scores, warnings of collapsed output, and the files of a test."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, mode
from typing import Any

from mynah.utility.captions.scores import ScoreReport, caption_scores, collapse
from mynah.utility.storage import write_atomically

ALIKE = 0.9
"""From this share of captions on that are all the same, they have nothing to do with the clips."""
MIN_CLIPS = 3
"""Fewer than this may well be alike."""

log = logging.getLogger("mynah")


def score_captions(records: dict[str, list], language: str, quick: bool) -> ScoreReport:
    """Scores of the predictions against their references. quick: without Java and its seconds, so by plain words and
    without METEOR."""
    predictions, references = (
        dict(zip(records["name"], records[key], strict=True)) for key in ("prediction", "references")
    )
    return caption_scores(predictions, references, language, java=not quick)


def caption_metrics(records: dict[str, list], report: ScoreReport, num_listed: int) -> dict[str, float]:
    """The scores, and loss (nats a masked word piece, mean over clips), coverage (captioned clips of
    those listed) and distinct (different captions of all)."""
    predictions = records["prediction"]
    scores = {name.lower().replace("-", "_"): value for name, value in report.scores.items()}
    return {
        "cider": 0.0,  # what it is of a single clip, for which pycocoevalcap's is left out
        **scores,
        "loss": fmean(records["loss"]),
        "coverage": len(predictions) / num_listed,
        "distinct": len(set(predictions)) / len(predictions),
    }


def warn_of_collapse(split: str, records: dict[str, list]) -> None:
    """Say where all captions are (nearly) alike or a loss is not finite, as when training has gone wrong."""
    predictions = dict(zip(records["name"], records["prediction"], strict=True))
    share = collapse(predictions)
    if len(predictions) >= MIN_CLIPS and share >= ALIKE:
        caption = mode(predictions.values())
        log.warning(
            "%s: %.0f %% of the %d captions are the same, %s: the decoder does not look at the clips, either not yet "
            "or because training has collapsed; if it stays so, lower optimizer.lr or lengthen the warm-up",
            *(split, 100 * share, len(predictions), repr(caption) if caption else "with no word in it"),
        )
    lost = [name for name, loss in zip(records["name"], records["loss"], strict=True) if not math.isfinite(loss)]
    if lost:
        log.warning(
            "%s: the loss of %d of %d clips is not finite, such as %s", split, len(lost), len(predictions), lost[0]
        )


def write_predictions(
    folder: Path, split: str, records: dict[str, list], report: ScoreReport, num_listed: int
) -> list[Path]:
    """predictions.json (everything) and predictions.md (to read): scores with what they rest on, and each clip."""
    content = {
        "split": split,
        "clips": len(records["name"]),
        "listed": num_listed,
        "coverage": len(records["name"]) / num_listed,
        "tokenizer": report.tokenizer,
        "left_out": report.left_out,
        "scores": report.scores,
        "predictions": [
            {
                "name": name,
                "prediction": records["prediction"][index],
                "confidence": records["confidence"][index],
                "loss": records["loss"][index],
                "references": records["references"][index],
                "scores": report.per_clip[name],
            }
            for index, name in enumerate(records["name"])
        ],
    }
    as_json, as_table = folder / "predictions.json", folder / "predictions.md"
    write_atomically(as_json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    write_atomically(as_table, "\n".join(_lines(content)) + "\n")
    return [as_json, as_table]


def _lines(content: dict[str, Any]) -> list[str]:
    """The report as Markdown; the clips with the highest CIDEr first."""
    covered = f"{content['clips']} of {content['listed']} listed clips ({100 * content['coverage']:.1f} %)"
    left_out = [f"Left out: {score}: {reason}" for score, reason in content["left_out"].items()]
    ranked = sorted(content["predictions"], key=lambda clip: -clip["scores"].get("CIDEr", 0.0))
    return [
        f"# Captions of {content['split']}: {covered}",
        "",
        f"Scores by pycocoevalcap, words by {content['tokenizer']}.",
        *left_out,
        "",
        *_table([*content["scores"], "covered"], [[*map(_number, content["scores"].values()), covered]]),
        "",
        *_table(
            ["clip", "CIDEr", "confidence", "caption", "references"],
            [
                [
                    clip["name"],
                    _number(clip["scores"].get("CIDEr")),
                    f"{100 * clip['confidence']:.0f} %",
                    clip["prediction"],
                    "<br>".join(clip["references"]),
                ]
                for clip in ranked
            ],
        ),
    ]


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heading, ["---"] * len(heading), *rows]
    return [f"| {' | '.join(_cell(text) for text in line)} |" for line in lines]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
