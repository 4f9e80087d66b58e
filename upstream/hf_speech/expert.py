"""Speech encoders of Hugging Face behind the upstream contract."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mynah.upstream.interfaces import SpeechUpstream
from mynah.utility.configuration.sections import shown
from mynah.utility.errors import UserError

from .model import FAMILIES, MIN_SAMPLES, STRIDE, SpeechEncoder

NAME = "hf_speech"
ALWAYS_OFF = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False, "mask_time_prob": 0.0}
"""Randomness of their training that would change features while an upstream is fine-tuned."""

log = logging.getLogger("mynah")


class HuggingFaceSpeech(SpeechUpstream):
    """H_0, what enters the first layer, to H_L, as transformers gives them with `output_hidden_states`."""

    samples_per_position = STRIDE
    min_samples = MIN_SAMPLES

    @property
    def first_center(self) -> float:
        return self.encoder.first_center

    def __init__(self, encoder: SpeechEncoder):
        super().__init__()
        self.name, self.encoder = NAME, encoder
        self.hidden_size, self.num_hidden_states = encoder.hidden_size, encoder.num_hidden_states

    def encode(self, wavs: Tensor, lengths: Tensor, num_hidden_states: int) -> tuple[Sequence[Tensor], Tensor]:
        signals = [wav[:length] for wav, length in zip(wavs, lengths.tolist(), strict=True)]
        found = [states[:num_hidden_states] for states in self.encoder(signals)]
        positions = torch.tensor([len(states[0]) for states in found], device=wavs.device)
        return tuple(pad_sequence(list(layer), batch_first=True) for layer in zip(*found, strict=True)), positions

    def count_positions(self, samples: int) -> int:
        return self.encoder.count_positions(samples)

    def build_arguments(self) -> dict[str, Any]:
        extractor = self.encoder.extractor
        return {
            "model_config": _plain(self.encoder.model.config.to_dict()),
            "extractor_config": None if extractor is None else _plain(extractor.to_dict()),
            "random_weights": True,
        }


def load(
    ckpt: str | Path | None = None,
    config: str | Path | None = None,
    model_config: dict[str, Any] | None = None,
    extractor_config: dict[str, Any] | None = None,
    random_weights: bool = False,
) -> HuggingFaceSpeech:
    """The hub entry.

    ckpt: a model's folder, or its id in the hub such as facebook/hubert-base-ls960, which is downloaded once into
    their cache. model_config, extractor_config: instead, the plain values of its config.json and
    preprocessor_config.json, with random weights. Only safetensors and weights that torch loads without code are
    read; code in the model's folder is never run.
    Raises UserError where there is no such model, or it is none of FAMILIES.
    """
    if config is not None:
        raise UserError(f"{NAME}: its configuration is the model's own; leave -g and -t out")
    if (ckpt is None) == (model_config is None):
        raise UserError(
            f"{NAME}: give a model's folder or its id in the hub with -k, such as facebook/hubert-base-ls960"
        )
    if ckpt is None:
        return HuggingFaceSpeech(_build(model_config, extractor_config, random_weights))
    return HuggingFaceSpeech(_read(str(ckpt)))


def _read(source: str) -> SpeechEncoder:
    place = Path(source).expanduser()
    name = str(place) if place.is_dir() else source
    if place.is_file():
        raise UserError(f"{source}: a file; {NAME} takes the folder that holds config.json and the weights")
    theirs = _transformers()
    before = theirs.logging.get_verbosity()
    theirs.logging.set_verbosity_error()
    try:
        settings = theirs.AutoConfig.from_pretrained(name, trust_remote_code=False)
        _check_family(settings.model_type, source)
        for key, value in ALWAYS_OFF.items():
            if hasattr(settings, key):
                setattr(settings, key, value)
        model = theirs.AutoModel.from_pretrained(name, config=settings, dtype=torch.float32, trust_remote_code=False)
        extractor = _read_extractor(name)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{source}: not a model of Hugging Face that can be read ({reason[:200]}); give a folder with "
            "config.json and the weights, or an id in the hub"
        ) from error
    finally:
        theirs.logging.set_verbosity(before)
    encoder = _wrap(model, extractor)
    size = sum(weight.numel() for weight in encoder.parameters()) / 1e6
    log.info("%s: loaded %s (%s, %.2f M parameters)", NAME, source, settings.model_type, size)
    _tell_of_licence(place)
    return encoder


def _build(model: dict[str, Any], extractor: dict[str, Any] | None, random_weights: bool) -> SpeechEncoder:
    plain = copy.deepcopy(model)
    kind = plain.pop("model_type", None)
    _check_family(kind, "model_config=")
    try:
        settings = _transformers().AutoConfig.for_model(kind, **plain)
        made = _transformers().AutoModel.from_config(settings)
        built = None if extractor is None else _extractor_of(extractor)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{NAME}: no {kind} can be built from these values: {error}") from error
    if not random_weights:
        log.warning("%s: no checkpoint given, the weights are random (pass ckpt=, or -k)", NAME)
    return _wrap(made, built)


def _wrap(model: torch.nn.Module, extractor: Any) -> SpeechEncoder:
    kind = model.config.model_type
    if kind == "whisper":
        model = model.get_encoder()
    return FAMILIES[kind](model, extractor)


def _check_family(kind: Any, source: str) -> None:
    if kind not in FAMILIES:
        raise UserError(f"{source}: its model_type is {shown(kind)}; {NAME} knows {', '.join(FAMILIES)}")


def _read_extractor(name: str) -> Any:
    try:
        return _transformers().AutoFeatureExtractor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name}: its preprocessor_config.json cannot be read, which says whether waveforms are normalized: "
            f"{str(error).splitlines()[0][:200]}"
        ) from error


def _extractor_of(plain: dict[str, Any]) -> Any:
    kind = plain.get("feature_extractor_type")
    found = getattr(_transformers(), str(kind), None)
    if not str(kind).endswith("FeatureExtractor") or found is None:
        raise ValueError(f"{shown(kind)} is no feature extractor")
    return found.from_dict(copy.deepcopy(plain))


def _transformers() -> Any:
    """The package, which takes seconds to import and is needed for this upstream alone."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"{NAME} needs the package 'transformers', which is not installed; install it (pip install transformers "
            "or pip install 'mynah[hub]')"
        ) from error
    return transformers


def _tell_of_licence(folder: Path) -> None:
    """A line for the licence that the model's card names, where it lies in the folder."""
    try:
        head = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:5000]
    except OSError:
        return
    for line in head.splitlines():
        if line.startswith("license:"):
            log.info("%s: the model's licence is %s", NAME, line.partition(":")[2].strip())
            return


def _plain(value: Any) -> Any:
    """Nested values that a checkpoint may hold."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.tolist() if hasattr(value, "tolist") else str(value)
