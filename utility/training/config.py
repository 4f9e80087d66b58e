"""The configuration sections that pretraining and downstream training share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from mynah.utility.configuration.load import to_plain
from mynah.utility.configuration.sections import Section, one_of, rules
from mynah.utility.errors import UserError
from mynah.utility.training.optimization import OPTIMIZERS, SCHEDULES
from mynah.utility.training.trainer_arguments import check_trainer

MAX_SEED = 2**32 - 1
"""The seed is multiplied by the step; the product must fit into 64 bits."""


class LoaderConfig(Section):
    """How items become batches."""

    batch_size: int = Field(12, ge=1)
    """Items in a batch of one process."""
    max_batch_seconds: float | None = Field(None, gt=0)
    """Instead of a fixed size: as many items of similar length as give at most this much padded audio."""
    eval_batch_size: int = Field(8, ge=1)
    """Items in a batch of the held-out data."""
    num_workers: int = Field(2, ge=0, le=256)
    """Processes that read ahead; 0 reads in the training process."""


class ClipLoaderConfig(LoaderConfig):
    """Of clips, which are all of one length."""

    @rules
    def _clips_have_no_seconds(self) -> Iterable[str | None]:
        if self.max_batch_seconds is not None:
            yield "max_batch_seconds: is for speech; give dataloader.batch_size, in clips"


class OptimizerConfig(Section):
    """Biases and LayerNorm weights are never decayed."""

    name: Annotated[str, one_of(OPTIMIZERS)] = "adamw"
    """adamw, adam or sgd."""
    lr: float = Field(1e-4, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(0.0, ge=0)
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=lambda: [0.9, 0.999])
    """Of Adam and AdamW; sgd takes the first as its momentum."""
    eps: float = Field(1e-8, gt=0)
    """Of Adam and AdamW."""

    @rules
    def _betas_are_two(self) -> Iterable[str | None]:
        if len(self.betas) != 2:
            yield f"betas: expected two numbers, got {self.betas}"


class SchedulerConfig(Section):
    """The learning rate over optimizer steps."""

    name: Annotated[str, one_of(SCHEDULES)] = "linear"
    """linear (warm-up, then linear decay to zero) or constant (after the warm-up)."""
    num_warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up from zero."""
    warmup_fraction: float | None = Field(None, ge=0, le=1)
    """Instead of num_warmup_steps: this share of the training steps."""
    num_training_steps: int | None = None
    """Step at which the decay reaches zero; null: trainer.max_steps."""

    @rules
    def _steps_agree(self) -> Iterable[str | None]:
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


class CheckpointConfig(Section):
    """Which states of a run are kept. `last.ckpt` is the latest, `best.ckpt` the best on held-out data."""

    save_every_n_steps: int = Field(500, ge=1)
    """Optimizer steps between two saves of last.ckpt; it is also saved after every validation and at the end."""
    keep_every_n_steps: int | None = Field(None, ge=1)
    """Keep a copy named step-N.ckpt that often; null: none."""


class SharedConfig(Section):
    """What every run has."""

    seed: int = Field(1337, ge=0, le=MAX_SEED)
    """Every random choice is a function of this seed and of the position in the run."""
    trainer: Annotated[dict[str, Any], AfterValidator(check_trainer)] = Field(default_factory=dict)
    """Arguments of Lightning's Trainer under its own names (max_steps, precision, devices, strategy, ...)."""

    @rules
    def _length_is_given(self) -> Iterable[str | None]:
        if self.needs_max_steps() and "max_steps" not in self.trainer:
            yield "trainer.max_steps: missing; give the number of optimizer steps"

    @rules
    def _validation_lies_between_steps(self) -> Iterable[str | None]:
        batches, accumulated = (self.trainer.get(key) for key in ("val_check_interval", "accumulate_grad_batches"))
        if batches and accumulated and batches % accumulated:
            yield (
                f"trainer.val_check_interval: must be a multiple of accumulate_grad_batches ({accumulated}), so that "
                f"no half-accumulated gradient is saved; got {batches}"
            )

    def needs_max_steps(self) -> bool:
        """Whether nothing else says how long the run is."""
        return True

    def resolved_keys(self) -> list[str]:
        """The keys that a run finds out for itself when it begins, whatever the configuration says of them."""
        return []


class PretrainConfig(SharedConfig, ABC):
    """Base of every `PretrainConfig` of an upstream's expert.py; the subclass adds `model`, `datarc` and so on."""

    demo_data: ClassVar[str]
    """What the demo recipe is trained on, for a message."""

    dataloader: LoaderConfig = Field(default_factory=LoaderConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)

    @abstractmethod
    def has_data(self) -> bool:
        """Whether a corpus is named; without, the demo recipe runs (the section `demo` of the YAML file)."""

    @abstractmethod
    def use_demo_data(self) -> None:
        """Take the demo corpus, making it if need be."""


DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate")
ARCHITECTURE = ("model", "features", "objective")
"""The sections that weights depend on."""
SPLIT_KEYS = ("valid_fraction", "split_seed")
"""Keys of `datarc` that decide what is held out."""
MAY_CHANGE = (
    *DROPOUTS,
    "gradient_checkpointing",
    "cache",
    "cache_gib",
    "disk_gib",
    "zeroed",
    "sparse_weight",
    "sparse_resizing",
)
"""Keys of these sections that may change although the weights are trained."""


def refuse_other_model(config: Any, plain: dict[str, Any], source: Path) -> None:
    """Raise UserError where weights that are trained would be used in another model than they were trained in.

    config: of the run that goes on with the checkpoint `source`, or uses it; plain: the one that it was written with.
    What `config.resolved_keys()` names is the checkpoint's own in any case.
    """
    settled = tuple(config.resolved_keys())
    given = to_plain(config)
    changed = [
        f"{key}={value}"
        for section in ARCHITECTURE
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


def refuse_other_validation(config: Any, plain: dict[str, Any], source: Path) -> None:
    """Raise UserError where a resumed run would train on what it has held out so far.

    config: of the resumed run; plain: the one that the checkpoint `source` was written with.
    """
    given, own = to_plain(config.datarc), plain.get("datarc", {})
    changed = [f"datarc.{key}={given[key]}" for key in SPLIT_KEYS if key in given and given[key] != own.get(key)]
    if changed:
        raise UserError(
            f"{', '.join(changed)}: would train on utterances or clips that {source} has held out for validation; "
            "leave it as it was, or start a new run from these weights with --init-from"
        )


def refuse_other_optimizer(config: Any, plain: dict[str, Any], source: Path) -> None:
    """Raise UserError where a resumed run would have an optimizer other than its own, whose saved state, the peak
    learning rate in it, would win without a word.

    config: of the resumed run; plain: the one that the checkpoint `source` was written with.
    """
    given, own = to_plain(config.optimizer), plain.get("optimizer", {})
    if changed := [f"optimizer.{key}={value}" for key, value in given.items() if own.get(key) != value]:
        raise UserError(
            f"{', '.join(changed)}: a resumed run goes on with the optimizer that {source} holds; "
            "leave it as it was, or start a new run from these weights with --init-from"
        )
