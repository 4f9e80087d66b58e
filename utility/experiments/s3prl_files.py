"""Checkpoints of s3prl's masked acoustic models (Mockingjay, Audio ALBERT, TERA), in the three layouts there are.

v0.1  Transformer, SpecHead, Optimizer, Global_step, Settings: {Config, Paras}
2021  Transformer, SpecHead, Optimizer, Step, Args, Runner, Config[, Scheduler]
2022  the same, with the model's configuration under Upstream_Config and the runner's under Config
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.utility.errors import UserError
from mynah.utility.experiments.exported import is_exported
from mynah.utility.experiments.integrity import not_finite, some_of, why_damaged
from mynah.utility.experiments.stand_ins import load_with_stand_ins


@dataclass(frozen=True)
class S3prlCheckpoint:
    """What is used of such a file."""

    config: dict[str, Any]
    """Its sections `transformer`, `task` and `audio`; those of v0.1 are called as in the later layouts."""
    transformer: dict[str, Tensor]
    """The encoder's weights by their names."""
    head: dict[str, Tensor]
    """The prediction head's."""
    step: int

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The names in Mynah that take it, the best one first.

        Audio ALBERT is the one whose layers share their weights. TERA and Mockingjay differ in training alone: TERA
        masks bands of frequency too, or adds noise.
        """
        alterations = (self.config["task"].get("mask_frequency"), self.config["task"].get("noise_proportion"))
        own = "aalbert" if self.config["transformer"].get("share_layer") else "mockingjay"
        is_tera = any(isinstance(one, int | float) and one > 0 for one in alterations)
        if is_tera:
            return "tera", own
        return (own,) if own == "aalbert" else (own, "tera")


def read_s3prl(path: Path) -> S3prlCheckpoint | None:
    """The checkpoint in a file, on the CPU; None where the file is something else, whole or not.

    No Python object of the file is made (`stand_ins.py`). Raises UserError for one of s3prl's that lacks something.
    """
    if is_exported(path) or why_damaged(path):
        return None
    try:
        content = load_with_stand_ins(path)
    except Exception:  # bytes that are no checkpoint make the unpickler fail in many ways; others say so
        return None
    if not isinstance(content, dict):
        return None
    if "Mockingjay" in content and "Settings" in content:
        raise UserError(f"{path}: a Mockingjay of 2019, from before s3prl; its features were computed outside of it")
    if "Transformer" not in content:
        return None
    config = _config(content)
    if config is None:
        raise UserError(
            f"{path}: s3prl's by its Transformer, but without a configuration of the model; expected a section "
            "transformer in Config, Upstream_Config or Settings"
        )
    step = content.get("Step", content.get("Global_step"))
    weights = {part: _weights(path, part, content.get(part)) for part in ("Transformer", "SpecHead")}
    return S3prlCheckpoint(config, weights["Transformer"], weights["SpecHead"], step if isinstance(step, int) else 0)


def advice_for(path: Path) -> str | None:
    """What to do with a file where a checkpoint of Mynah was expected, if it is one of s3prl's; else None."""
    try:
        theirs = read_s3prl(path)
    except UserError as error:
        return str(error).removeprefix(f"{path}: ")
    if theirs is None:
        return None
    names = " or ".join(f"-u {name}" for name in theirs.upstreams)
    return f"a checkpoint of s3prl, not of Mynah; run_downstream.py takes it by -k with {names}"


def _config(content: dict[str, Any]) -> dict[str, Any] | None:
    settings = _plain(content.get("Settings"))
    places = [content.get("Config"), content.get("Upstream_Config"), settings and settings.get("Config")]
    config = next((one for one in map(_plain, places) if one and isinstance(one.get("transformer"), dict)), None)
    if config is None:
        return None
    transformer = config["transformer"]
    # v0.1 had what trains the model and the front end elsewhere.
    task = config.get("task", {**transformer, "sequence_length": transformer.get("max_input_length", 0)})
    audio = config.get("audio", config.get("online"))
    return {"transformer": transformer, "task": task if isinstance(task, dict) else {}, "audio": audio}


def _plain(value: Any, depth: int = 6) -> dict[str, Any] | None:
    """A mapping with the plain values of it and of those in it, whatever else it holds; None for anything else."""
    if not isinstance(value, dict) or not depth:
        return None
    found = {str(key): _plain(each, depth - 1) if isinstance(each, dict) else each for key, each in value.items()}
    return {
        key: each for key, each in found.items() if each is None or isinstance(each, dict | bool | int | float | str)
    }


def _weights(path: Path, part: str, weights: Any) -> dict[str, Tensor]:
    if not isinstance(weights, dict) or not all(map(_is_weight, weights.values())):
        raise UserError(f"{path}: s3prl's, but its {part} holds something else than weights by name")
    if wrong := not_finite(weights):
        raise UserError(f"{path}: s3prl's, but its {part} holds weights that are NaN or infinite ({some_of(wrong)})")
    return {str(name): weight.detach() for name, weight in weights.items()}


def _is_weight(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and (value.layout, value.is_meta) == (torch.strided, False)
    )
