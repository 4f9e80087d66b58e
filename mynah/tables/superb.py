"""The results of a table as JSON, in the layout of SUPERB's leaderboard.

An entry of https://superbbenchmark.org is a flat object: what is submitted (submitName, modelDesc, stride in ms,
inputFormat, corpus, paramShared) and a score for each task under its name there, such as SID_acc_public, rates in
percent. (What is uploaded for it are zipped predictions, which their server scores; their web site names the fields.)
"""

import math
from pathlib import Path
from typing import Any

from mynah.tables.metrics import name_of, scaled
from mynah.tables.plan import FINISHED
from mynah.tables.specs import folder_name
from mynah.tables.writing import Grid, other_metrics
from mynah.utility.experiments.folder import write_json

JSON = "results.json"
SCORES = {
    ("speech_commands", "accuracy"): "KS_acc_public",
    ("voxceleb1_speaker", "accuracy"): "SID_acc_public",
    ("emotion", "accuracy"): "ER_acc_public",
    ("phone_ctc", "per"): "PR_per_public",
    ("asr_ctc", "wer"): "ASR_wer_public",
    ("sv_voxceleb1", "eer"): "SV_eer_public",
}
"""(task, metric) -> the leaderboard's name."""
NOTE = (
    "the layout of SUPERB's leaderboard: its names stand for its data and its recipes, and scores compare with its "
    "own only where both are these; rates are in percent"
)


def write_superb(grid: Grid, folder: Path) -> Path:
    """results.json. Raises UserError where it cannot be written."""
    write_json(superb(grid), folder / JSON)
    return folder / JSON


def superb(grid: Grid) -> dict[str, Any]:
    """{"leaderboard": an entry a row, "metrics": what each score is, ...}."""
    names = {column.label: _score_name(grid, column.label) for column in grid.columns}
    entries = [_entry(grid, row, names) for row in grid.rows]
    about = {
        names[column.label]: {
            "task": column.task,
            "label": column.label,
            "metric": grid.metrics[column.label].key,
            "higherBetter": grid.metrics[column.label].mode == "max",
            "options": column.options,
        }
        for column in grid.columns
    }
    return {"table": grid.name, "note": NOTE, "leaderboard": entries, "scores": about}


def _score_name(grid: Grid, label: str) -> str:
    """The leaderboard's name of a task's score, where the table has that task once; else one of the same make."""
    column = next(each for each in grid.columns if each.label == label)
    metric = grid.metrics[label].key
    alone = sum(each.task == column.task for each in grid.columns) == 1
    known = SCORES.get((column.task, metric)) if alone else None
    return known or f"{folder_name(label)}_{metric}"


def _entry(grid: Grid, row: Any, names: dict[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "submitName": row.label,
        "modelDesc": row.upstream,
        "modelURL": row.checkpoint or "-",
        "inputFormat": "waveform",
    }
    deviations, others, failures = {}, {}, {}
    for column in grid.columns:
        state, name = grid.state(row, column), names[column.label]
        entry[name] = "-"
        if state is not None and state.status == FINISHED and state.mean is not None:
            entry[name] = "-" if (score := _score(state.metric.key, state.mean)) is None else score
            if state.deviation is not None:
                deviations[name] = _score(state.metric.key, state.deviation)
            others[name] = {
                name_of(key): _score(key, value) for key, value in other_metrics(state) if key != state.metric.key
            }
        if state is not None and state.reasons:
            failures[name] = state.reasons
    return {
        **entry,
        "sha256": row.sha256 or "-",
        "deviations": deviations,
        "otherMetrics": others,
        "failures": failures,
    }


def _score(key: str, value: float) -> float | None:
    """None for what is not finite, as JSON has no such numbers."""
    return round(scaled(key, value), 6) if math.isfinite(value) else None
