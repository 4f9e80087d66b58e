"""openWakeWord's speech embedding behind the upstream contract: a convolutional network (Lin et al. 2020) in ONNX.

Of the package only two files are read, so that none of its requirements but onnxruntime is needed. There is nothing
in it to train, and it runs on the CPU wherever the rest does.
"""

import logging
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mynah.upstream.interfaces import SpeechUpstream
from mynah.utility.configuration.load import to_plain
from mynah.utility.configuration.options import flat_options
from mynah.utility.configuration.sections import Section, one_of
from mynah.utility.errors import UserError
from mynah.utility.experiments.integrity import file_digest

NAME = "openwakeword"
PACKAGE, VERSION, FOLDER = "openwakeword", "0.4.0", "openwakeword/resources/models"
MEL, EMBEDDING = "melspectrogram.onnx", "embedding_model.onnx"
SHA256 = {
    MEL: "ba2b0e0f8b7b875369a2c89cb13360ff53bac436f2895cced9f479fa65eb176f",
    EMBEDDING: "ba754db3cd768a524c655ea90655ee5e6055a43b8dfd29366a11e93716ae9e51",
}
FFT, HOP = 512, 160
WINDOW, STEP = 76, 8
"""Mel frames that an embedding sees, and from one embedding to the next."""
WINDOW_SAMPLES = FFT + (WINDOW - 1) * HOP
STEP_SAMPLES = STEP * HOP
FULL_SCALE = 32768.0
"""The models read numbers of 16 bits, as floats."""
SCALE = 1 / 16
"""Of the hidden state to what the package gives: so its RMS is about 1, as a task's learning rate expects."""
LOG = logging.getLogger("mynah")


class OpenWakeWordConfig(Section):
    """Where embeddings lie."""

    windows: Annotated[str, one_of(("inside", "centred"))] = "inside"
    """inside: windows that lie within the waveform, as the package embeds clips: three for a second. centred: one in
    the middle of each 80 ms, with silence beyond the ends: twelve for a second."""


class OpenWakeWord(SpeechUpstream):
    """One hidden state: a sixteenth of the embeddings of 0.78 s, one every 80 ms.

    A waveform that is too short for one is lengthened by silence.
    The mel model cuts off what is 80 dB below the loudest of all that it is given, so it is given one waveform at a
    time; all windows of a batch go through the embedding together.
    """

    hidden_size, num_hidden_states = 96, 1
    samples_per_position, min_samples = STEP_SAMPLES, 400

    def __init__(self, config: OpenWakeWordConfig):
        super().__init__()
        self.name, self.config = NAME, config
        self.before = (WINDOW_SAMPLES - STEP_SAMPLES) // 2 if config.windows == "centred" else 0
        self.models = {file: _session(file) for file in SHA256}
        self.register_buffer("place", torch.empty(0), persistent=False)  # tells `device` where the module was moved

    @property
    def first_center(self) -> float:
        return WINDOW_SAMPLES / 2 - self.before

    def count_positions(self, samples: int) -> int:
        fitting = samples if self.before else samples - WINDOW_SAMPLES + STEP_SAMPLES
        return max(1, fitting // STEP_SAMPLES)

    @torch.no_grad()
    def encode(self, wavs: Tensor, lengths: Tensor, num_hidden_states: int) -> tuple[tuple[Tensor], Tensor]:
        """wavs: (B, T) float32, lengths: (B,) -> ((B, N, 96),), (B,) positions, in float32."""
        signals = [wav[:length] for wav, length in zip(wavs.detach().cpu().numpy(), lengths.tolist(), strict=True)]
        windows = [self._mel_windows(signal) for signal in signals]
        counts = [len(each) for each in windows]
        [embedded] = self.models[EMBEDDING].run(None, {"input_1": np.concatenate(windows)})
        rows = torch.from_numpy(SCALE * embedded.reshape(-1, self.hidden_size)).to(wavs.device).split(counts)
        return (pad_sequence(list(rows), batch_first=True),), torch.tensor(counts, device=wavs.device)

    def _mel_windows(self, signal: np.ndarray) -> np.ndarray:
        """(T,) -> (N, 76, 32, 1) mel frames, scaled as openWakeWord scales them."""
        count = self.count_positions(len(signal))
        samples = WINDOW_SAMPLES + (count - 1) * STEP_SAMPLES
        padded = np.pad(signal, (self.before, max(0, samples - self.before - len(signal))))
        [mel] = self.models[MEL].run(None, {"input": padded[None] * FULL_SCALE})
        frames = mel.reshape(-1, 32) / 10 + 2
        return np.stack([frames[start : start + WINDOW, :, None] for start in range(0, count * STEP, STEP)])

    def build_arguments(self) -> dict[str, Any]:
        return to_plain(self.config)


def load(ckpt: None = None, config: str | Path | None = None, **options: Any) -> OpenWakeWord:
    """The hub entry. config: a YAML file with fields of OpenWakeWordConfig; options: such fields, which come first.

    Raises UserError for a checkpoint, for unknown or impossible options, and where the package is missing or holds
    other models.
    """
    if ckpt is not None:
        raise UserError(f"{NAME} takes its weights from the package, so it cannot load {ckpt}; leave ckpt= (-k) out")
    model = OpenWakeWord(flat_options(OpenWakeWordConfig, config, options, NAME))
    LOG.info("%s: loaded the models of %s %s", NAME, PACKAGE, VERSION)
    return model


def _session(file: str) -> onnxruntime.InferenceSession:
    """A model of the installed package, its content checked, on as many threads as torch has."""
    advice = f"pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(f"{FOLDER}/{file}")))
    except metadata.PackageNotFoundError:
        raise UserError(f"{NAME} needs the package {PACKAGE}, which is not installed; {advice}") from None
    if not path.is_file() or file_digest(path) != SHA256[file]:
        raise UserError(f"{path} is missing or not that of {PACKAGE} {VERSION}, which was expected; {advice}")
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads, options.intra_op_num_threads = 1, torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
