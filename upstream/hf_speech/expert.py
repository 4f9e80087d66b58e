"""Speech encoders of Hugging Face behind the upstream contract."""

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mynah.upstream.huggingface import (
    PublishedModel,
    build_model,
    config_of,
    first_line,
    plain_values,
    reading,
    transformers_package,
)
from mynah.upstream.interfaces import SpeechUpstream
from mynah.utility.audio.files import SAMPLE_RATE
from mynah.utility.configuration.sections import shown
from mynah.utility.errors import UserError

from .model import FAMILIES, SpeechEncoder

NAME = "hf_speech"
ALWAYS_OFF = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False, "mask_time_prob": 0.0}
"""Randomness of their training that would change features while an upstream is fine-tuned."""

log = logging.getLogger("mynah")


class HuggingFaceSpeech(SpeechUpstream):
    """H_0, what enters the first layer, to H_L, as transformers gives them with `output_hidden_states`."""

    @property
    def first_center(self) -> float:
        return self.encoder.first_center

    def __init__(self, encoder: SpeechEncoder):
        super().__init__()
        self.name, self.encoder = NAME, encoder
        self.hidden_size, self.num_hidden_states = encoder.hidden_size, encoder.num_hidden_states
        self.samples_per_position, self.min_samples = encoder.samples_per_position, encoder.min_samples

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
            "model_config": plain_values(self.encoder.model.config.to_dict()),
            "extractor_config": None if extractor is None else plain_values(extractor.to_dict()),
            "random_weights": True,
        }


def load(
    ckpt: str | Path | None = None,
    config: str | Path | None = None,
    model_config: dict[str, Any] | None = None,
    extractor_config: dict[str, Any] | None = None,
    random_weights: bool = False,
    **others: Any,
) -> HuggingFaceSpeech:
    """The hub entry.

    ckpt: a model's folder, or its id in the hub such as facebook/hubert-base-ls960, which is downloaded once into
    their cache. model_config, extractor_config: instead, the plain values of its config.json and
    preprocessor_config.json, with random weights. Only safetensors and weights that torch loads without code are
    read; code in the model's folder is never run.
    Raises UserError where there is no such model, or it is none of FAMILIES.
    """
    if others:
        known = "ckpt, model_config, extractor_config and random_weights"
        raise UserError(f"{NAME}: unknown option {', '.join(others)}; it takes {known}")
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
    with reading(NAME, source) as published:
        settings = published.config(FAMILIES)
        for key, value in ALWAYS_OFF.items():
            if hasattr(settings, key):
                setattr(settings, key, value)
        model = published.model(settings, FAMILIES[settings.model_type].unused)
        encoder = _wrap(model, _read_extractor(published))
        published.tell(encoder, settings.model_type)
    return encoder


def _build(model: dict[str, Any], extractor: dict[str, Any] | None, random_weights: bool) -> SpeechEncoder:
    made = build_model(NAME, config_of(NAME, model, FAMILIES))
    try:
        built = None if extractor is None else _extractor_of(extractor)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{NAME}: no feature extractor can be built from these values: {error}") from error
    if not random_weights:
        log.warning("%s: no checkpoint given, the weights are random (pass ckpt=, or -k)", NAME)
    return _wrap(made, built)


def _wrap(model: torch.nn.Module, extractor: Any) -> SpeechEncoder:
    kind = model.config.model_type
    if extractor is None and FAMILIES[kind].needs_extractor:
        raise UserError(f"{NAME}: a {kind} reads what its feature extractor makes; give extractor_config= too")
    rate = getattr(extractor, "sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise UserError(
            f"{NAME}: its feature extractor is for waveforms of {shown(rate)} Hz, but this is given {SAMPLE_RATE} Hz"
        )
    if kind == "whisper":
        model = model.get_encoder()
    return FAMILIES[kind](model, extractor)


def _read_extractor(published: PublishedModel) -> Any:
    try:
        return published.transformers.AutoFeatureExtractor.from_pretrained(published.name, **published.options)
    except (OSError, ValueError) as error:
        reason = first_line(error).partition(". ")[0].rstrip(".")
        raise UserError(
            f"{published.given}: its preprocessor_config.json is missing or cannot be read, which says whether "
            f"waveforms are normalized; save its feature extractor into that folder too ({reason})"
        ) from error


def _extractor_of(plain: dict[str, Any]) -> Any:
    kind = plain.get("feature_extractor_type")
    found = getattr(transformers_package(NAME), str(kind), None)
    if not str(kind).endswith("FeatureExtractor") or found is None:
        raise ValueError(f"{shown(kind)} is no feature extractor")
    return found.from_dict(copy.deepcopy(plain))
