"""Resemblyzer's speaker encoder behind the upstream contract: an LSTM over mel spectrograms (Wan et al. 2018, GE2E).

Of the package only the file of weights is read, so that none of its requirements (`webrtcvad`) are needed.
"""

import logging
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from mynah.upstream.interfaces import SpeechUpstream
from mynah.utility.configuration.load import to_plain
from mynah.utility.configuration.options import flat_options
from mynah.utility.configuration.sections import Section, one_of
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import load_weights, without
from mynah.utility.experiments.integrity import file_digest
from mynah.utility.experiments.weight_files import load_tensors
from mynah.utility.nn.padding import lengths_to_mask
from mynah.utility.nn.precision import SinglePrecision

NAME = "resemblyzer"
PACKAGE, VERSION, WEIGHTS = "Resemblyzer", "0.1.4", "resemblyzer/pretrained.pt"
SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
WINDOW, HOP, N_MELS, SIZE = 400, 160, 40, 256
PARTIAL = 160
"""Frames of a partial utterance, 1.6 s: what the model was trained on."""
LOUDNESS = 10 ** (-30 / 20)
"""Root mean square, -30 dBFS, to which quieter waveforms are raised."""
LOG = logging.getLogger("mynah")


class ResemblyzerConfig(Section):
    """What a position is."""

    positions: Annotated[str, one_of(("partials", "frames"))] = "partials"
    """partials: of 1.6 s each, as the package embeds utterances. frames: every 10 ms, what the LSTM says after all
    that it has heard up to there, also beyond the 1.6 s that it was trained on."""
    rate: float = Field(1.3, ge=0.625, le=100)
    """Partial utterances a second. The package's own default."""
    min_coverage: float = Field(0.75, gt=0, le=1)
    """The last partial utterance counts if so much of it lies within the waveform. The package's own default."""


class Mel(SinglePrecision):
    """wavs: (B, T) float32 -> (B, 1 + T // 160, 40) mel power, without a logarithm; as librosa, zeros at the ends."""

    def __init__(self):
        super().__init__()
        filters = melscale_fbanks(WINDOW // 2 + 1, 0.0, 8000.0, N_MELS, 16000, norm="slaney", mel_scale="slaney")
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("hann", torch.hann_window(WINDOW), persistent=False)

    def forward(self, wavs: Tensor) -> Tensor:
        spectra = torch.stft(wavs, WINDOW, HOP, window=self.hann, pad_mode="constant", return_complex=True)
        return spectra.abs().square().transpose(1, 2) @ self.filters


class Resemblyzer(SpeechUpstream):
    """H_0: the output of the last of three LSTM layers; H_1: its d-vector, times 16, so that its RMS is 1.

    A position is a partial utterance or a frame, see `ResemblyzerConfig`.
    """

    hidden_size, num_hidden_states, min_samples = SIZE, 2, WINDOW

    def __init__(self, config: ResemblyzerConfig):
        super().__init__()
        self.name, self.config, self.by_frames = NAME, config, config.positions == "frames"
        self.step = 1 if self.by_frames else round(16000 / config.rate / HOP)
        self.samples_per_position = self.step * HOP
        self.mel = Mel()
        self.lstm = nn.LSTM(N_MELS, SIZE, 3, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)

    @property
    def first_center(self) -> float:
        return 0.0 if self.by_frames else (PARTIAL - 1) * HOP / 2

    def count_positions(self, samples: int) -> int:
        """Frames, or the partial utterances in which the package would cut a waveform of that length."""
        if self.by_frames:
            return 1 + samples // HOP
        frames = -(-(samples + 1) // HOP)
        count = -(-max(1, frames - PARTIAL + self.step + 1) // self.step)
        covered = (samples - (count - 1) * self.samples_per_position) / (PARTIAL * HOP)
        return count - 1 if count > 1 and covered < self.config.min_coverage else count

    def encode(self, wavs: Tensor, lengths: Tensor, num_hidden_states: int) -> tuple[tuple[Tensor, ...], Tensor]:
        positions = torch.tensor([self.count_positions(samples) for samples in lengths.tolist()], device=wavs.device)
        wavs = wavs * _gain(wavs, lengths)[:, None]
        with torch.autocast(wavs.device.type, enabled=False):  # for which CPUs have no LSTM
            if self.by_frames:
                states = self.lstm(self.mel(wavs).to(self.dtype))[0]
            else:
                states = self._encode_partials(wavs, lengths_to_mask(positions))
            return (states, self._d_vectors(states))[:num_hidden_states], positions

    def _encode_partials(self, wavs: Tensor, valid: Tensor) -> Tensor:
        """wavs: (B, T); valid: (B, P) -> (B, P, SIZE), the LSTM's output after each partial utterance."""
        end = ((valid.shape[1] - 1) * self.step + PARTIAL) * HOP
        mel = self.mel(F.pad(wavs, (0, max(0, end - wavs.shape[1]))))
        partials = mel.unfold(1, PARTIAL, self.step)[:, : valid.shape[1]].transpose(2, 3)[valid]
        outputs = self.lstm(partials.to(self.dtype))[0][:, -1]
        return outputs.new_zeros(*valid.shape, SIZE).masked_scatter(valid[:, :, None], outputs)

    def _d_vectors(self, states: Tensor) -> Tensor:
        return F.normalize(self.linear(states).relu(), dim=-1) * SIZE**0.5

    def build_arguments(self) -> dict[str, Any]:
        return {**to_plain(self.config), "random_weights": True}


def _gain(wavs: Tensor, lengths: Tensor) -> Tensor:
    """(B,) factors that bring quiet waveforms to LOUDNESS; 1 for others, and for silence."""
    rms = (wavs.square().sum(1) / lengths).sqrt()
    return torch.where(rms > 0, LOUDNESS / rms, 1.0).clamp_min(1.0)


def load(
    ckpt: None = None, config: str | Path | None = None, random_weights: bool = False, **options: Any
) -> Resemblyzer:
    """The hub entry. config: a YAML file with fields of ResemblyzerConfig; options: such fields, which come first.

    random_weights: an untrained twin. Raises UserError for a checkpoint, for unknown or impossible options, and where
    the package is missing or holds other weights.
    """
    if ckpt is not None:
        raise UserError(f"{NAME} takes its weights from the package, so it cannot load {ckpt}; leave ckpt= (-k) out")
    model = Resemblyzer(flat_options(ResemblyzerConfig, config, options, NAME))
    if not random_weights:
        path = _weights_of_package()
        weights = without(load_tensors(path)["model_state"], "similarity_")  # which only its loss needs
        load_weights(model, weights, path)
        LOG.info("%s: loaded %s", NAME, path)
    return model


def _weights_of_package() -> Path:
    """The file in the installed package, its content checked."""
    advice = f"pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(WEIGHTS)))
    except metadata.PackageNotFoundError:
        raise UserError(f"{NAME} needs the package {PACKAGE}, which is not installed; {advice}") from None
    if not path.is_file() or file_digest(path) != SHA256:
        raise UserError(f"{path} is missing or not that of {PACKAGE} {VERSION}, which was expected; {advice}")
    return path
