"""Export of pretrained weights: a small file for features, and a card beside it.

Left out is what training alone needs: the objective with its heads and clusters, the corpus' statistics of its
targets, the optimizer's state. Weights are written in half precision, the corpus' statistics of the input in single.
"""

import itertools
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah import ROOT
from mynah.plugins import Plugin, build_upstream, get_plugin
from mynah.upstream.cards import PLACEHOLDER, Facts, card_text
from mynah.upstream.export_records import changes_of_recipe, provenance_of
from mynah.utility.acoustic.trunk import AcousticTrunk, TrunkConfig, trunk_sections, without_objective
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.load import from_plain, to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments import shipped
from mynah.utility.experiments.checkpoint import (
    METADATA,
    load_weights,
    locate_checkpoint,
    make_metadata,
    read_checkpoint,
    select_weights,
)
from mynah.utility.experiments.exported import Exported, encode_export, is_exported
from mynah.utility.experiments.integrity import file_digest, not_finite, some_of
from mynah.utility.storage import replacing, write_atomically

MAX_DIFFERENCE = 0.02
"""More than this, of the norm of a hidden state, half precision must not change."""
SIGNAL_SECONDS = 3
EARLIER = ".earlier.md"
"""Ends the name that an overwritten card keeps."""

log = logging.getLogger("mynah")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What `export` takes. The names in messages are the flags of the command line."""

    source: str | Path
    """A checkpoint of pretraining, or an experiment, whose newest state is taken."""
    name: str
    """--name: the weights' name, a word of a-z, 0-9, "_" and "-"; the file is called UPSTREAM-NAME.safetensors."""
    licenses: Mapping[str, str] = field(default_factory=dict)
    """--license: of each name in the run's datarc.file_path, the licence of that data."""
    folder: Path | None = None
    """--to: where the file goes; by default the folder weights/ of the clone, where it is found by its name."""
    overwrite: bool = False
    """--overwrite: replace an earlier file and card of the name."""
    plugin_paths: tuple[Path, ...] = ()
    """--plugin-path: folders with plugins outside of Mynah."""


def export(options: ExportOptions) -> dict[str, Any]:
    """Write weights/UPSTREAM-NAME.safetensors and its card; the card first, so that no weights are without one.

    Returns "file", "card", "bytes", "sha256" and "differences", what half precision changes of each hidden state of a
    fixed signal, as a share of its norm. Raises UserError, before anything is written, where the checkpoint is of no
    acoustic model, a licence is missing, the name is taken, or the file does not give the run's features.
    """
    path = locate_checkpoint(options.source)
    if is_exported(path):
        raise UserError(f"{path}: is exported already; copy the file with its card, or give the run that it is from")
    checkpoint = read_checkpoint(path, "pretrain")
    metadata = checkpoint[METADATA]
    upstream = metadata["upstream"]
    target = _target(options, upstream)
    trunk = _trunk_of(checkpoint, path)
    provenance = provenance_of(path, metadata, trunk.positions, options.licenses)
    provenance |= {"weights": target.stem, "left_out": _left_out(checkpoint, trunk)}
    stored = _halved(trunk, path)
    config = {**to_plain(trunk.config), "objective": None}
    about = make_metadata("pretrain", upstream, config, metadata["step"])
    content = encode_export(stored, Exported({}, about, provenance))
    plugin = get_plugin("upstream", upstream, options.plugin_paths)
    with tempfile.TemporaryDirectory() as aside:
        written = Path(aside, target.name)
        written.write_bytes(content)
        differences = compare_features(plugin, path, written)
        digest = file_digest(written)
    if max(differences) > MAX_DIFFERENCE:
        raise UserError(
            f"{path}: half precision changes hidden states by {max(differences):.1%} of their norm, more than "
            f"{MAX_DIFFERENCE:.0%}; nothing was written. Use the checkpoint as it is"
        )
    facts = Facts(
        stem=target.stem,
        upstream=upstream,
        name=options.name,
        bytes=len(content),
        sha256=digest,
        trunk=trunk,
        provenance=provenance,
        differences=differences,
        changes=changes_of_recipe(plugin, metadata),
    )
    card = target.with_suffix(shipped.CARD)
    _write(card, card_text(facts), target, content)
    return {"file": target, "card": card, "bytes": len(content), "sha256": digest, "differences": differences}


def compare_features(plugin: Plugin, one: Path, other: Path) -> list[float]:
    """How far the hidden states of a fixed signal by two checkpoints of an upstream are apart: of each, the norm of
    the difference as a share of the norm of the first."""
    signal = fixed_signal()
    states = []
    for source in (one, other):
        expert = build_upstream(plugin, source).eval()
        with torch.no_grad():
            states.append(expert([signal])["hidden_states"])
    return [((second - first).norm() / first.norm()).item() for first, second in zip(*states, strict=True)]


def fixed_signal() -> Tensor:
    """(T,) float32: a voice-like tone that glides and comes and goes, in a little noise; the same at any time."""
    seconds = torch.arange(SIGNAL_SECONDS * SAMPLE_RATE, dtype=torch.float64) / SAMPLE_RATE
    phase = 2 * torch.pi * (110 * seconds + 20 * seconds.square())
    tone = torch.stack([torch.sin(harmonic * phase) / harmonic for harmonic in range(1, 20)]).sum(0)
    noise = torch.randn(len(seconds), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (0.1 * tone * (0.55 + 0.45 * torch.sin(15 * seconds)) + 0.01 * noise).float()


def _target(options: ExportOptions, upstream: str) -> Path:
    """The file to write. Raises UserError where the name cannot be one, or is taken."""
    if not shipped.is_name(options.name):
        raise UserError(
            f"--name {options.name!r}: expected a word of at most 60 characters a-z, 0-9, _ and - that begins with a "
            "letter or digit, such as small"
        )
    folder = options.folder
    if folder is None:
        if not (ROOT / "hubconf.py").is_file():
            raise UserError("--to DIR is needed: this Mynah is installed, not a clone with a folder weights/")
        folder = shipped.WEIGHTS
    target = Path(folder) / f"{upstream}-{options.name}{shipped.SUFFIX}"
    there = [path for path in (target, target.with_suffix(shipped.CARD)) if path.exists()]
    if there and not options.overwrite:
        verb = "exists" if len(there) == 1 else "exist"
        raise UserError(
            f"{' and '.join(map(str, there))} {verb} already; --overwrite replaces it, --name takes another name"
        )
    return target


def _trunk_of(checkpoint: dict[str, Any], path: Path) -> AcousticTrunk:
    """The part of an acoustic checkpoint that gives features, with its weights. Raises UserError."""
    metadata = checkpoint[METADATA]
    sections = trunk_sections(metadata["config"])
    if sections is None:
        raise UserError(f"{path}: holds upstream '{metadata['upstream']}'; only acoustic models can be exported")
    trunk = AcousticTrunk(from_plain(TrunkConfig, sections, str(path)))
    weights = select_weights(checkpoint["state_dict"], "model.")
    load_weights(trunk, without_objective(weights, trunk.state_dict()), path)
    return trunk


def _halved(trunk: AcousticTrunk, path: Path) -> dict[str, Tensor]:
    """The weights as they are written. Raises UserError where one is too large for half precision."""
    learned = {name for name, _ in trunk.named_parameters()}
    halved = {
        f"model.{name}": value.half() if name in learned else value for name, value in trunk.state_dict().items()
    }
    if wrong := not_finite(halved):
        raise UserError(
            f"{path}: weights are too large for half precision ({some_of(wrong)}); use the checkpoint itself"
        )
    return halved


def _left_out(checkpoint: dict[str, Any], trunk: AcousticTrunk) -> list[str]:
    """The names of the checkpoint's weights that the file does without."""
    return sorted(select_weights(checkpoint["state_dict"], "model.").keys() - trunk.state_dict().keys())


def _write(card: Path, text: str, target: Path, content: bytes) -> None:
    """Both files, each whole or not at all. Raises UserError where that is not possible."""
    try:
        if card.is_file():
            names = (card.stem + (f"_{number}" if number > 1 else "") + EARLIER for number in itertools.count(1))
            earlier = next(path for path in map(card.with_name, names) if not path.exists())
            write_atomically(earlier, card.read_text(encoding="utf-8"))
            log.info("%s: the earlier card is kept as %s; results have to be measured again", card, earlier.name)
        write_atomically(card, text)
        with replacing(target) as file:
            file.write(content)
    except OSError as error:
        raise UserError(
            f"{target}: could not be written: {error.strerror or error}; --to gives another place"
        ) from error
    log.info("%s: fill in what it marks by %s", card, PLACEHOLDER)
