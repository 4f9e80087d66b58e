"""How waveforms go into each family of encoders, and which states come out."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mynah.utility.audio.files import SAMPLE_RATE

STRIDE = 320
"""Samples from one position to the next, where convolutions over the waveform do not say otherwise."""
FRAME, SHIFT = 400, 160
"""Samples of a frame of filter banks, and from one to the next."""
NORMALIZATION_FLOOR = 1e-7
PADDABLE = ("wav2vec2", "hubert", "wavlm", "unispeech-sat")
"""Model types that give an input the same states padded as alone, if their convolutions have layer norm."""


class SpeechEncoder(nn.Module, ABC):
    """model: an encoder of transformers; extractor: its feature extractor, or None where it takes plain waveforms."""

    model: nn.Module
    hidden_size: int
    num_hidden_states: int
    samples_per_position: int = STRIDE
    min_samples: int = FRAME
    """The shortest waveform that has a position."""
    needs_extractor: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)
    """Prefixes of weights that no feature depends on: what stands for masked frames in their training."""

    def __init__(self, model: nn.Module, extractor: Any):
        super().__init__()
        self.model, self.extractor = model, extractor

    @abstractmethod
    def forward(self, signals: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        """Waveforms (T,) -> for each its hidden states, (N, D) each."""

    def count_positions(self, samples: int) -> int:
        """Positions of a waveform of that many samples."""
        return -(-samples // STRIDE)

    @property
    def first_center(self) -> float:
        """Samples from the beginning to the middle of what the first position sees."""
        return 0.0

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


class WaveformEncoder(SpeechEncoder):
    """Those that read waveforms: wav2vec 2.0 and what grew from it.

    A group norm over time sees the padding, and so do stacked convolutions over positions; such models are run on
    inputs of equal length only. So an input has the same states alone and in any batch.
    """

    def __init__(self, model: nn.Module, extractor: Any):
        super().__init__(model, extractor)
        config = model.config
        self.hidden_size, self.num_hidden_states = config.hidden_size, config.num_hidden_layers + 1
        self.samples_per_position, self.min_samples = math.prod(config.conv_stride), self._reach()
        self.normalizes = bool(getattr(extractor, "do_normalize", False))
        self.padded = config.model_type in PADDABLE and config.feat_extract_norm == "layer"

    def count_positions(self, samples: int) -> int:
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    @property
    def first_center(self) -> float:
        """Half the reach of the convolutions, which are not padded."""
        return (self._reach() - 1) / 2

    def _reach(self) -> int:
        """Samples that one position sees."""
        config, reach = self.model.config, 1
        for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            reach = (reach - 1) * stride + kernel
        return reach

    def forward(self, signals: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        signals = [self._normalized(signal.to(self.device, torch.float32)) for signal in signals]
        if self.padded:
            return self._run(signals, list(range(len(signals))))
        found: dict[int, tuple[Tensor, ...]] = {}
        for length in dict.fromkeys(map(len, signals)):
            rows = [row for row, signal in enumerate(signals) if len(signal) == length]
            found |= dict(zip(rows, self._run(signals, rows), strict=True))
        return [found[row] for row in range(len(signals))]

    def _run(self, signals: Sequence[Tensor], rows: list[int]) -> list[tuple[Tensor, ...]]:
        chosen = [signals[row] for row in rows]
        lengths = [len(signal) for signal in chosen]
        padded = nn.utils.rnn.pad_sequence(chosen, batch_first=True).to(self.dtype)
        mask = None
        if len(set(lengths)) > 1:
            ends = torch.tensor(lengths, device=padded.device)
            mask = (torch.arange(padded.shape[1], device=padded.device) < ends[:, None]).long()
        states = self.model(padded, attention_mask=mask, output_hidden_states=True).hidden_states
        counts = [self.count_positions(length) for length in lengths]
        return [tuple(state[row, :count] for state in states) for row, count in enumerate(counts)]

    def _normalized(self, signal: Tensor) -> Tensor:
        """To the mean 0 and variance 1 over the utterance, before any padding, where the model was trained so."""
        if not self.normalizes:
            return signal
        return (signal - signal.mean()) / (signal.var(correction=0) + NORMALIZATION_FLOOR).sqrt()


class ExtractedEncoder(SpeechEncoder):
    """w2v-BERT 2.0, which reads filter banks of its own extractor; one input after another, so nothing is padded.

    A position is two of their frames.
    """

    min_samples = FRAME + SHIFT
    needs_extractor = True

    def __init__(self, model: nn.Module, extractor: Any):
        super().__init__(model, extractor)
        self.hidden_size, self.num_hidden_states = model.config.hidden_size, model.config.num_hidden_layers + 1

    def forward(self, signals: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        found = []
        for signal in signals:
            inputs = self.extractor(signal.float().cpu().numpy(), sampling_rate=SAMPLE_RATE, return_tensors="pt")
            valid = int(inputs["attention_mask"].sum())
            features = inputs["input_features"][:, :valid].to(self.device, self.dtype)
            states = self.model(features, output_hidden_states=True).hidden_states
            found.append(tuple(state[0] for state in states))
        return found

    def count_positions(self, samples: int) -> int:
        return (1 + (samples - FRAME) // SHIFT) // 2

    @property
    def first_center(self) -> float:
        """Of two frames."""
        return (FRAME + SHIFT) / 2


class WhisperEncoder(SpeechEncoder):
    """Whisper's encoder, which reads exactly 30 s: shorter inputs are filled up, longer ones cut into such parts."""

    unused = ("decoder.",)
    needs_extractor = True

    def __init__(self, model: nn.Module, extractor: Any):
        super().__init__(model, extractor)
        self.hidden_size, self.num_hidden_states = model.config.d_model, model.config.encoder_layers + 1
        self.window = 2 * model.config.max_source_positions * SHIFT

    def forward(self, signals: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
        parts = [(row, part) for row, signal in enumerate(signals) for part in signal.split(self.window)]
        arrays = [part.float().cpu().numpy() for _, part in parts]
        features = self.extractor(
            arrays, sampling_rate=SAMPLE_RATE, return_tensors="pt", padding="max_length", max_length=self.window
        )["input_features"]
        states = self.model(features.to(self.device, self.dtype), output_hidden_states=True).hidden_states
        found: list[list[tuple[Tensor, ...]]] = [[] for _ in signals]
        for index, (row, part) in enumerate(parts):
            count = -(-len(part) // STRIDE)
            found[row].append(tuple(state[index, :count] for state in states))
        return [tuple(torch.cat(layer) for layer in zip(*each, strict=True)) for each in found]


FAMILIES: dict[str, type[SpeechEncoder]] = {
    "wav2vec2": WaveformEncoder,
    "hubert": WaveformEncoder,
    "wavlm": WaveformEncoder,
    "unispeech": WaveformEncoder,
    "unispeech-sat": WaveformEncoder,
    "data2vec-audio": WaveformEncoder,
    "wav2vec2-bert": ExtractedEncoder,
    "whisper": WhisperEncoder,
}
"""`model_type` in a model's config.json -> how it is run."""
