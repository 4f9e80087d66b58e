"""The configuration sections that pretraining and downstream training share."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mynah.utility.configuration.checks import range_problem
from mynah.utility.configuration.load import to_plain
from mynah.utility.errors import UserError
from mynah.utility.training.optimization import OPTIMIZERS, SCHEDULES
from mynah.utility.training.trainer_arguments import trainer_problems

MAX_SEED = 2**32 - 1
"""Multiplied with a step's number it must still fit torch's 64 bits."""


@dataclass
class LoaderConfig:
    """How items become batches."""

    batch_size: int = 12
    """Items in a batch of one process."""
    max_batch_seconds: float | None = None
    """Instead of a fixed size: as many items of similar length as give at most this much padded audio."""
    eval_batch_size: int = 8
    """Items in a batch of the held-out data."""
    num_workers: int = 2
    """Processes that read ahead; 0 reads in the training process."""

    def problems(self) -> Iterable[str]:
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                yield f"{name}: must be at least 1, got {getattr(self, name)}"
        if self.max_batch_seconds is not None and self.max_batch_seconds <= 0:
            yield f"max_batch_seconds: must be positive, got {self.max_batch_seconds}"
        if self.num_workers < 0:
            yield f"num_workers: must not be negative, got {self.num_workers}"


@dataclass
class ClipLoaderConfig(LoaderConfig):
    """Of clips, which are all of one length."""

    def problems(self) -> Iterable[str]:
        yield from super().problems()
        if self.max_batch_seconds is not None:
            yield "max_batch_seconds: is for speech; give dataloader.batch_size, in clips"


@dataclass
class OptimizerConfig:
    """Biases and LayerNorm weights are never decayed."""

    name: str = "adamw"
    """adamw, adam or sgd."""
    lr: float = 1e-4
    """Peak learning rate."""
    weight_decay: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Of Adam and AdamW; sgd takes the first as its momentum."""
    eps: float = 1e-8
    """Of Adam and AdamW."""

    def problems(self) -> Iterable[str]:
        if self.name not in OPTIMIZERS:
            yield f"name: {self.name!r} is not one of {', '.join(OPTIMIZERS)}"
        if self.lr <= 0:
            yield f"lr: must be positive, got {self.lr}"
        if self.weight_decay < 0:
            yield f"weight_decay: must not be negative, got {self.weight_decay}"
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            yield f"betas: must be two numbers in [0, 1), got {self.betas}"
        if self.eps <= 0:
            yield f"eps: must be positive, got {self.eps}"


@dataclass
class SchedulerConfig:
    """The learning rate over optimizer steps."""

    name: str = "linear"
    """linear (warm-up, then linear decay to zero) or constant (after the warm-up)."""
    num_warmup_steps: int = 0
    """Steps of linear warm-up from zero."""
    warmup_fraction: float | None = None
    """Instead of num_warmup_steps: this share of the training steps."""
    num_training_steps: int | None = None
    """Step at which the decay reaches zero; null: trainer.max_steps."""

    def problems(self) -> Iterable[str | None]:
        if self.name not in SCHEDULES:
            yield f"name: {self.name!r} is not one of {', '.join(SCHEDULES)}"
        if self.num_warmup_steps < 0:
            yield f"num_warmup_steps: must not be negative, got {self.num_warmup_steps}"
        yield range_problem("warmup_fraction", self.warmup_fraction, 0, 1)
        if self.warmup_fraction is not None and self.num_warmup_steps:
            yield f"warmup_fraction: is given beside num_warmup_steps={self.num_warmup_steps}; give one of them"
        if self.num_training_steps is not None and self.num_training_steps <= self.num_warmup_steps:
            yield (
                f"num_training_steps: must be more than num_warmup_steps ({self.num_warmup_steps}), "
                f"got {self.num_training_steps}"
            )

    def count_warmup_steps(self, num_training_steps: int) -> int:
        """Steps of warm-up of a training of that many steps."""
        if self.warmup_fraction is None:
            return self.num_warmup_steps
        return round(self.warmup_fraction * num_training_steps)


@dataclass
class CheckpointConfig:
    """Which states of a run are kept. `last.ckpt` is the latest, `best.ckpt` the best on held-out data."""

    save_every_n_steps: int = 500
    """Optimizer steps between two saves of last.ckpt; it is also saved after every validation and at the end."""
    keep_every_n_steps: int | None = None
    """Keep a copy named step-N.ckpt that often; null: none."""

    def problems(self) -> Iterable[str]:
        for name in ("save_every_n_steps", "keep_every_n_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: must be at least 1, got {value}"


@dataclass
class SharedConfig:
    """What every run has."""

    seed: int = 1337
    """Every random choice is a function of this seed and of the position in the run."""
    trainer: dict[str, Any] = field(default_factory=dict)
    """Arguments of Lightning's Trainer under its own names (max_steps, precision, devices, strategy, ...)."""

    def problems(self) -> Iterable[str | None]:
        yield range_problem("seed", self.seed, 0, MAX_SEED)
        for problem in trainer_problems(self.trainer, needs_max_steps=getattr(self, "epochs", None) is None):
            yield f"trainer.{problem}"


DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
MAY_CHANGE = (*DROPOUTS, "gradient_checkpointing", "cache_gib", "zeroed", "sparse_weight", "sparse_resizing")
"""Of the sections `model` and `features`, what weights that are trained do not depend on."""


def refuse_other_model(config: Any, plain: dict[str, Any], source: Path) -> None:
    """Raise UserError where weights that are trained would be used in another model than they were trained in.

    config: of the run that goes on with the checkpoint `source`, or uses it; plain: the one that it was written with.
    What `config.settled_keys()` names, if there is such a method, is the checkpoint's own in any case.
    """
    settled = tuple(config.settled_keys()) if hasattr(config, "settled_keys") else ()
    given = to_plain(config)
    changed = [
        f"{key}={value}"
        for section in ("model", "features")
        for key, value in _differences(given.get(section), plain.get(section), section)
        if key.rpartition(".")[2] not in MAY_CHANGE and not f"{key}.".startswith(tuple(f"{one}." for one in settled))
    ]
    if changed:
        raise UserError(
            f"{', '.join(changed)}: the weights in {source} were trained otherwise; leave it as it was, "
            "or start a new run from them with --init-from"
        )


def _differences(given: Any, own: Any, key: str) -> Iterator[tuple[str, Any]]:
    """(key, given value) of all values that differ."""
    if isinstance(given, dict) and isinstance(own, dict):
        for name, value in given.items():
            yield from _differences(value, own.get(name, value), f"{key}.{name}")
    elif given != own:
        yield key, given


def refuse_other_optimizer(config: Any, plain: dict[str, Any], source: Path) -> None:
    """Raise UserError where a resumed run would have an optimizer other than its own, whose saved state, the peak
    learning rate in it, would win without a word.

    config: of the resumed run; plain: the one that the checkpoint `source` was written with.
    """
    given, own = to_plain(config.optimizer), plain["optimizer"]
    if changed := [f"optimizer.{key}={value}" for key, value in given.items() if own.get(key) != value]:
        raise UserError(
            f"{', '.join(changed)}: a resumed run goes on with the optimizer that {source} holds; "
            "leave it as it was, or start a new run from these weights with --init-from"
        )
