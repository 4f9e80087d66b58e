"""What the records of a pretraining run say of weights that are exported from it."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mynah import __version__
from mynah.plugins import Plugin, import_plugin
from mynah.utility.acoustic.dataset import find_utterances
from mynah.utility.acoustic.features import Positions
from mynah.utility.audio.corpus import CorpusConfig
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.load import from_plain, load_config, to_plain
from mynah.utility.configuration.recipes import DEMO, recipes_beside
from mynah.utility.configuration.sections import nearest
from mynah.utility.errors import UserError
from mynah.utility.experiments.integrity import file_digest
from mynah.utility.experiments.provenance import RUN_FILE, current_commit

log = logging.getLogger("mynah")


def provenance_of(
    path: Path, metadata: dict[str, Any], positions: Positions, licenses: Mapping[str, str]
) -> dict[str, Any]:
    """Where the weights of a checkpoint come from, plain values, without the paths of this machine.

    metadata: the checkpoint's; positions: its model's; licenses: {corpus: licence}. Raises UserError where a licence
    is missing.
    """
    recipe = json.loads(json.dumps(metadata.get("pretrain_config", {})))
    corpora = recipe.get("datarc", {}).pop("file_path", None) or {}
    record = _run_record(path)
    clusters = recipe.get("init", {}).get("clusters", "")
    if clusters:
        recipe["init"]["clusters"] = Path(clusters).name
    init_from = record.get("init_from")
    _check_licenses(licenses, corpora, earlier=bool(clusters or init_from))
    counts = _count_data(metadata, positions) if corpora else {}
    legs = [leg for leg in record.get("legs", []) if isinstance(leg, dict)]
    return {
        "source": {"file": path.name, "sha256": file_digest(path), "step": metadata["step"]},
        "commits": list(dict.fromkeys(leg["commit"] for leg in legs if leg.get("commit"))),
        "exported_by": {"mynah": __version__, "commit": current_commit()},
        "data": {name: {"license": text, **counts.get(name, {})} for name, text in licenses.items()},
        "data_fingerprints": (record.get("data") or {}).get("fingerprints"),
        "init_from": init_from and {"given": Path(init_from["given"]).name, "sha256": init_from.get("sha256")},
        "cost": {
            key: round(sum(leg.get(key) or 0 for leg in legs), 1) for key in ("cpu_seconds", "wall_seconds") if legs
        },
        "losses": {key: metadata.get(key) for key in ("first_val_loss", "last_val_loss")},
        "recipe": recipe,
    }


def _run_record(path: Path) -> dict[str, Any]:
    """What the run.json of the checkpoint's experiment says; nothing where there is none."""
    file = path.parent.parent / RUN_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        log.warning("%s: cannot be read; commits and cost stay open in the card", file)
        return {}
    return content


def _check_licenses(licenses: Mapping[str, str], corpora: Mapping[str, str], earlier: bool) -> None:
    """Raise UserError where the licence of a corpus is not told, or one is told of what the run has not read.

    earlier: the run began with another, whose corpora may be named as well.
    """
    told = {name for name, text in licenses.items() if text.strip()}
    expected = set(corpora)
    if missing := sorted(expected - told) or ([] if told else ["DATA"]):
        form = " ".join(f'{name}="CC BY 4.0"' for name in missing)
        raise UserError(
            f"the licence of the data is part of the file: give --license {form}, or what holds there, for what the "
            "run was trained on"
        )
    unknown = [] if earlier or not expected else sorted(told - expected)
    for name in unknown:
        near = nearest(name, expected)
        hint = f"; did you mean {near}?" if near else ""
        raise UserError(f"--license {name}: the run was trained on {', '.join(sorted(expected))}{hint}")


def _count_data(metadata: dict[str, Any], positions: Positions) -> dict[str, dict[str, Any]]:
    """{corpus: utterances and hours} that the run could use; nothing where the data is not here any more."""
    try:
        datarc = from_plain(CorpusConfig, metadata["pretrain_config"]["datarc"], "the run's datarc")
        utterances = find_utterances(datarc, positions, None)
    except UserError as error:
        log.warning("the run's data cannot be counted, which stays open in the card: %s", error)
        return {}
    counts: dict[str, dict[str, Any]] = {}
    for utterance in utterances:
        entry = counts.setdefault(utterance.corpus, {"utterances": 0, "hours": 0.0})
        entry["utterances"] += 1
        entry["hours"] += utterance.samples / SAMPLE_RATE / 3600
    return {name: {**entry, "hours": round(entry["hours"], 2)} for name, entry in counts.items()}


def changes_of_recipe(plugin: Plugin, metadata: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The recipe beside the plugin that the run is most like, and {dotted key: value} of what it has otherwise.

    None where the checkpoint does not tell the run's configuration.
    """
    if "pretrain_config" not in metadata:
        return None
    schema = import_plugin(plugin, "expert").PretrainConfig
    own = _flat(to_plain(from_plain(schema, metadata["pretrain_config"], "the run's configuration")))
    recipes = recipes_beside(plugin.folder / "pretrain_config.yaml")
    found = {}
    for name, file in recipes.items():
        theirs = _flat(to_plain(load_config(schema, files=[file], demo=name == DEMO)))
        found[name] = {key: value for key, value in own.items() if theirs.get(key, ...) != value and _tells(key)}
    nearest_one = min(found, key=lambda name: len(found[name]))
    return nearest_one, found[nearest_one]


def _tells(key: str) -> bool:
    """Whether a key changes what is trained, and names no place of this machine."""
    return not key.startswith(
        ("datarc.file_path", "logging.", "trainer.enable_progress_bar", "init.", "objective.clusters.teacher")
    )


def _flat(plain: Any, before: str = "") -> dict[str, Any]:
    if not isinstance(plain, dict) or not plain:
        return {before: plain}
    return {
        key: each
        for name, value in plain.items()
        for key, each in _flat(value, f"{before}.{name}" if before else name).items()
    }
