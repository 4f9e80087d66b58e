"""The downstream contract: what a task is, and the settings that every task has.

A task is a folder with an `expert.py` that defines `DownstreamExpert`, a subclass of the one here, and a
`config.yaml`. It says where its data is, how features become a loss, a metric and a prediction; extracting features,
choosing layers, training, checkpoints and inference are the same for all tasks.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from mynah.utility.audio.alignment import PositionGrid
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.sections import Section, one_of, rules
from mynah.utility.errors import UserError
from mynah.utility.experiments.folder import SKIPPED_FILES
from mynah.utility.training.config import (
    CheckpointConfig,
    LoaderConfig,
    OptimizerConfig,
    SchedulerConfig,
    SharedConfig,
)

SPLITS = ("train", "dev", "test")
SELECTIONS = ("hidden_states", "last_hidden_state")
CACHES = ("memory", "disk", "off")
CACHE_DTYPES = ("auto", "float16", "float32")


@dataclass(frozen=True)
class UpstreamInfo:
    """What a task may know of the upstream."""

    name: str
    modality: str
    """speech or video."""
    feature_size: int
    """D of the features that the task receives."""
    samples_per_position: int
    """Input samples (speech) or frames (video) from one feature in time to the next."""
    frames_per_clip: int = 0
    """Video: frames that the upstream takes of a clip."""
    frame_size: int = 0
    """Video: pixels of the square that it takes of a frame."""
    num_positions: int = 0
    """Video: features of a clip, time being the slowest axis."""
    num_hidden_states: int = 0
    """How many the upstream has; 0 where that is not known."""
    first_center: float | None = None
    """Speech: samples from the beginning to the middle of what the first feature sees; None for half a position."""
    caption_decoder: dict[str, Any] | None = None
    """Video: what a captioning task can begin with, as `VideoUpstream.caption_decoder` gives it."""

    @property
    def grid(self) -> PositionGrid:
        """Speech: where the features lie in time."""
        first = self.samples_per_position / 2 if self.first_center is None else self.first_center
        return PositionGrid(self.samples_per_position, first)


@dataclass(frozen=True)
class SignalChanges:
    """What is done to speech when it is read: in training, in tests and in inference."""

    trim_silence: bool = False
    """Silence is cut off at both ends."""
    gain_db: float = 0.0
    """The level is changed by it."""


@dataclass(frozen=True)
class SignalInfo:
    """What `predict` may know of a signal beside its features."""

    name: str
    """The file's path."""
    samples: int
    """Its length: samples at 16 kHz of speech, frames of a clip as it was read."""
    times: Sequence[float] = ()
    """Speech: the middle of each feature, in seconds from the file's beginning; none where the task reads means."""

    @property
    def seconds(self) -> float:
        """The length of speech."""
        return self.samples / SAMPLE_RATE


class FeaturesConfig(Section):
    """What of the upstream's output the task receives."""

    selection: Annotated[str, one_of(SELECTIONS)] = "hidden_states"
    """hidden_states (a learned weighted sum of all, or the one named by `layer`) or last_hidden_state."""
    layer: int | None = None
    """Use this hidden state alone; 0 is the embedded input, -1 the last."""
    normalize: bool = False
    """LayerNorm (without weights) over each hidden state before the weighted sum."""
    zeroed: bool = False
    """Zeros instead of the features: a control, what the task can do without seeing its input."""
    cache: Annotated[str, one_of(CACHES)] = "memory"
    """Where features of a frozen upstream are kept, so that they are computed once: in memory, for a training; on
    disk, for all runs with the same upstream and data (downstream/README.md); off computes them every time."""
    cache_gib: float = Field(2.0, ge=0)
    """Memory for them with cache=memory; 0 is as cache=off."""
    disk_gib: float = Field(50.0, gt=0)
    """The most that the features of all runs together may take on disk with cache=disk."""
    cache_dtype: Annotated[str, one_of(CACHE_DTYPES)] = "auto"
    """Of the numbers on disk: float16, float32 or auto, which is float16 but for means over time. They are rounded
    when they are first used too, so it makes no difference to a result when features were computed."""
    windows: int = Field(0, ge=0)
    """Training crops: 0 draws new ones in every pass, and features of these are computed every time; K draws K of
    each utterance, which come again every K passes and whose features are kept."""

    @rules
    def _layer_is_chosen_among_all(self) -> Iterable[str | None]:
        if self.layer is not None and self.selection != "hidden_states":
            yield f"layer: is chosen among hidden_states, but selection is {self.selection}"


class InferenceConfig(Section):
    """Bounds of what `-m inference` reads, so that one file of a folder does not end the others' predictions."""

    max_seconds: float = Field(600.0, gt=0)
    """The longest speech that is encoded at once; longer files are skipped, or encoded in windows."""
    window_seconds: float = Field(0.0, ge=0)
    """Speech that is longer than this is read and encoded in windows of about this length; 0 encodes whole files."""
    max_megapixels: float = Field(36.0, gt=0)
    """The largest frame of a video, in millions of pixels (8K has 33); larger ones are skipped."""

    @rules
    def _a_window_can_be_encoded(self) -> Iterable[str | None]:
        if self.window_seconds > self.max_seconds:
            yield f"window_seconds: expected at most max_seconds ({self.max_seconds}), got {self.window_seconds}"


class TaskOptimizerConfig(OptimizerConfig):
    """The head's optimizer; the upstream, when fine-tuned, has a learning rate of its own."""

    upstream_lr: float = Field(1e-5, gt=0)
    """Peak learning rate of the upstream's weights with -f."""


class DownstreamConfig(SharedConfig):
    """The sections that every task's config.yaml has; a task's schema adds its own `datarc` and `model`."""

    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
    dataloader: LoaderConfig = Field(default_factory=LoaderConfig)
    optimizer: TaskOptimizerConfig = Field(default_factory=TaskOptimizerConfig)
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    inference: InferenceConfig = Field(default_factory=InferenceConfig)

    @property
    def signal_changes(self) -> SignalChanges:
        """Of a speech task; none unless a schema knows better."""
        return SignalChanges()


class DownstreamExpert(nn.Module, ABC):
    """A task: its data, its head, its metrics, its predictions."""

    modality: ClassVar[str] = "speech"
    """What the upstream must read."""
    Config: ClassVar[type[DownstreamConfig]] = DownstreamConfig
    """The schema of config.yaml."""
    monitor: ClassVar[str] = "accuracy"
    """The key of `log_records` that chooses the best checkpoint, on the dev split."""
    mode: ClassVar[str] = "max"
    """max or min."""

    def __init__(
        self,
        upstream: UpstreamInfo,
        config: Any,
        state: dict[str, Any] | None = None,
        folder: Path | None = None,
    ):
        """Build the head for features of `upstream.feature_size`.

        config: an instance of `Config`. state: None to find from the data what has to be known (the list of
        speakers, say), or what `state()` of an earlier expert returned: then no data is touched. folder: the
        experiment's, for lists such as that of skipped files; None writes none.
        """
        super().__init__()
        self.upstream, self.config, self.folder = upstream, config, folder
        self.scalars: dict[str, Tensor | float] = {}
        """`forward` may put parts of its loss here, by name, () each; they are logged beside the loss in training."""

    @property
    def reads_mean(self) -> bool:
        """Whether the loss and all predictions depend on the mean of the features over time alone, as with a head
        that is linear up to a mean. The task is then given that mean: features (B, 1, D) and lengths of 1. The mean
        of each hidden state is all that has to be kept, and nothing depends on which features were kept."""
        return False

    @property
    def skipped_files(self) -> Path | None:
        """Where files that cannot be used are named."""
        return self.folder and self.folder / SKIPPED_FILES

    @classmethod
    def has_data(cls, config: Any) -> bool:
        """Whether the configuration names any data; without, the demo recipe runs."""
        return bool(config.datarc.file_path)

    @classmethod
    @abstractmethod
    def use_demo_data(cls, config: Any) -> None:
        """Point `config.datarc` at the demo corpus, making it if need be."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain values from which the expert can be rebuilt without its data."""

    @abstractmethod
    def get_dataset(self, split: str) -> Dataset:
        """The items of train, dev or test.

        An item is {"signal": (T,) float32 or uint8 clip (T, 3, H, W), "label": anything, "name": str, "fixed": bool},
        or {"signal": None, "name": str, "error": str} for one that could not be read. "fixed" says that the signal is
        the same in every pass, so that features of it may be kept. The label may belong to the whole, be a sequence
        of its own length, or one for each feature: then it depends on where the crop began (`LabelledSpeechDataset`
        with `FrameLabels`). The dataset takes (pass, index) keys, on which alone random crops depend, and has
        `lengths`, the samples or frames of each item. With `peek(key)`, the item without its signal but with
        "source", which says what the signal is of which state of which file (or None), files whose features are known
        are not read, features can be kept on disk, and crops may come again; then `fixed` is a list of whether each
        item is.
        LabelledSpeechDataset has both.
        """

    @abstractmethod
    def forward(
        self,
        split: str,
        features: Tensor,
        lengths: Tensor,
        labels: list[Any],
        records: dict[str, list],
        names: list[str],
    ) -> Tensor:
        """features: (B, N, D), lengths: (B,) int64 valid positions, labels and names: B of each.

        Returns the loss, () float, the mean over the batch. Appends to the lists of `records`, one plain Python
        value an item, whatever `log_records` and `write_report` need.
        """

    @abstractmethod
    def log_records(self, split: str, records: dict[str, list]) -> dict[str, float]:
        """Records of a whole split -> named metrics, `monitor` among them."""

    def write_report(self, split: str, records: dict[str, list], folder: Path) -> list[Path]:
        """Write the split's predictions as a readable table, and pictures if there are any; returns the files."""
        return []

    @abstractmethod
    def predict(self, features: Tensor, lengths: Tensor, signals: Sequence[SignalInfo] = ()) -> list[dict[str, Any]]:
        """features: (B, N, D), lengths: (B,), signals: B, what is known of each -> B results of plain values."""

    def compare_predictions(self, result: dict[str, Any], first: dict[str, Any], first_path: Path) -> dict[str, Any]:
        """What `-m inference` adds to a file's result by comparing it with the first file's, of `first_path`."""
        return {}

    def draw_prediction(
        self, features: Tensor, lengths: Tensor, signal: Tensor, path: Path, info: SignalInfo | None = None
    ) -> None:
        """Draw the prediction for one signal, features: (1, N, D), into the file `path` (`--pictures`).

        info: of this signal; its times are seconds from the signal's beginning, wherever in the file that lies, and
        tell of the windows that it was encoded in. None for a signal that was encoded at once.
        """
        raise UserError("this task draws no pictures of its predictions; leave --pictures out")

    def format_prediction(self, result: dict[str, Any]) -> str:
        """A result of `predict` as a line for the terminal."""
        return ", ".join(f"{key} {value}" for key, value in result.items())
