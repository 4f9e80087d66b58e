"""Video encoders of Hugging Face behind the upstream contract."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from mynah.upstream.huggingface import PublishedModel, build_model, config_of, plain_values, reading
from mynah.upstream.interfaces import VideoUpstream
from mynah.utility.configuration.options import flat_options
from mynah.utility.configuration.sections import Section
from mynah.utility.errors import UserError

from .model import FAMILIES, NAME, Normalization, VideoEncoder, check_runs

PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")

log = logging.getLogger("mynah")


class HuggingFaceVideoConfig(Section):
    """What may be chosen of a published model."""

    frames_per_clip: int | None = Field(None, gt=0)
    """Frames that are sampled of a clip; null for as many as the model was trained with."""


class HuggingFaceVideo(VideoUpstream):
    """H_0, what enters the first layer, to H_L, what leaves the model; of TimeSformer without the class token."""

    def __init__(self, encoder: VideoEncoder):
        super().__init__()
        self.name, self.encoder = NAME, encoder
        self.hidden_size, self.num_hidden_states = encoder.hidden_size, encoder.num_hidden_states
        geometry = encoder.geometry
        self.frames_per_clip, self.frame_size = geometry.frames_used, geometry.frame_size
        self.num_positions = geometry.num_steps * geometry.num_places
        self.samples_per_position = geometry.tubelet_size

    def encode(self, frames: Tensor, num_hidden_states: int) -> Sequence[Tensor]:
        return self.encoder(frames)[:num_hidden_states]

    def build_arguments(self) -> dict[str, Any]:
        normalization = self.encoder.normalization
        return {
            "model_config": plain_values(self.encoder.model.config.to_dict()),
            "mean": list(normalization.mean),
            "deviation": list(normalization.deviation),
            "random_weights": True,
        }


def load(
    ckpt: str | Path | None = None,
    config: str | Path | None = None,
    model_config: dict[str, Any] | None = None,
    mean: Sequence[float] | None = None,
    deviation: Sequence[float] | None = None,
    random_weights: bool = False,
    **overrides: Any,
) -> HuggingFaceVideo:
    """The hub entry.

    ckpt: a model's folder, or its id in the hub such as MCG-NJU/videomae-base, which is downloaded once into their
    cache. model_config: instead, the plain values of its config.json, with random weights; mean, deviation: of its
    frames' pixels in [0, 1], by default those of the family. config: a YAML file with fields of
    HuggingFaceVideoConfig. overrides: such fields, which come before the file's. Only safetensors and weights that
    torch loads without code are read; code in the model's folder is never run.
    Raises UserError where there is no such model, or it is none of FAMILIES.
    """
    options = flat_options(HuggingFaceVideoConfig, config, overrides, NAME)
    if (ckpt is None) == (model_config is None):
        raise UserError(f"{NAME}: give a model's folder or its id in the hub with -k, such as MCG-NJU/videomae-base")
    if ckpt is not None:
        if mean is not None or deviation is not None:
            raise UserError(f"{NAME}: mean and deviation are those of the model; leave them out beside ckpt")
        return HuggingFaceVideo(_read(str(ckpt), options))
    if not random_weights:
        log.warning("%s: no checkpoint given, the weights are random (pass ckpt=, or -k)", NAME)
    return HuggingFaceVideo(_build(model_config, mean, deviation, options))


def _read(source: str, options: HuggingFaceVideoConfig) -> VideoEncoder:
    with reading(NAME, source) as published:
        settings = published.config(FAMILIES)
        family = FAMILIES[settings.model_type]
        changed = ""
        if options.frames_per_clip is not None:
            setattr(settings, family.frames_field, options.frames_per_clip)
            changed = f"frames_per_clip={options.frames_per_clip}"
        check_runs(settings)
        normalization = _read_normalization(published, family.published)
        encoder = family(published.model(settings, family.unused, changed), normalization)
        published.tell(encoder, settings.model_type)
    return encoder


def _build(
    plain: dict[str, Any],
    mean: Sequence[float] | None,
    deviation: Sequence[float] | None,
    options: HuggingFaceVideoConfig,
) -> VideoEncoder:
    family = FAMILIES.get(plain.get("model_type"))
    if family is not None and options.frames_per_clip is not None:
        plain = {**plain, family.frames_field: options.frames_per_clip}
    settings = config_of(NAME, plain, FAMILIES)
    try:
        check_runs(settings)
        return family(build_model(NAME, settings), Normalization.of(family.published, mean, deviation))
    except ValueError as error:
        raise UserError(f"{NAME}: {error}") from error


def _read_normalization(published: PublishedModel, family: Normalization) -> Normalization:
    """Of the model's image or video processor; where there is none, its family's, and a line says so."""
    values = published.values(*PROCESSORS)
    if values is None or not {"image_mean", "image_std"} <= values.keys():
        log.warning(
            "%s: %s has no %s that gives image_mean and image_std; its family's %s and %s are taken",
            *(NAME, published.given, " or ".join(PROCESSORS), list(family.mean), list(family.deviation)),
        )
        return family
    mean, deviation = values["image_mean"], values["image_std"]
    if values.get("do_normalize") is False:
        mean, deviation = 0.0, 1.0
    # Theirs are of pixels times a factor, which is 1/255 or hardly differs from it.
    scale = 255 * (1.0 if values.get("do_rescale") is False else values.get("rescale_factor", 1 / 255))
    return Normalization.of(family, mean, deviation, scale)
