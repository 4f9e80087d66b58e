"""Initialization of the captioner: from the upstream's decoder, a published ALBERT, a checkpoint, or at random."""

import logging
from collections.abc import Callable
from typing import Any

from mynah.downstream.interfaces import UpstreamInfo
from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.encoding import SubwordTokenizer
from mynah.utility.albert.huggingface import load_folder
from mynah.utility.albert.sparse_attention import SPARSE_TABLE
from mynah.utility.albert.tokenizer import AlbertTokenizer, load_tokenizer, tokenizer_from_plain
from mynah.utility.configuration.load import from_plain, to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import load_weights

from .model import CaptionModel, CaptionModelConfig

PROJECTION = ".img_embedding."

log = logging.getLogger("mynah")


def build_captioner(
    upstream: UpstreamInfo, config: CaptionModelConfig, embedded: bool, read_captions: Callable[[], list[str]]
) -> tuple[CaptionModel, SubwordTokenizer]:
    """The captioner of a new run and its tokenizer. One line of the log says where the weights come from.

    embedded: whether the features are the upstream's H_0 as it is: with the upstream's decoder that is the very model
    that was pretrained (SwinBERT). read_captions: the training captions, which a new tokenizer is trained on.
    Raises UserError for an `albert` folder that cannot be used.
    """
    given = upstream.caption_decoder if config.use_upstream_decoder else None
    if given is not None:
        return _take_from_upstream(upstream, given, config, embedded)
    if config.albert:
        decoder, tokenizer = _take_from_folder(upstream, config)
    else:
        decoder, tokenizer = _random_captioner(upstream, config, read_captions())
    steps = num_steps(upstream) if config.video_positions else None
    return CaptionModel(decoder, upstream.num_positions, steps), tokenizer


def plain_captioner(model: CaptionModel, tokenizer: SubwordTokenizer) -> dict[str, Any]:
    """All but the weights, as plain values and tensors; `rebuild_captioner` reads it."""
    sparse = model.decoder.sparse_attention
    return {
        "decoder_config": to_plain(model.decoder.config),
        "num_table_positions": None if sparse is None else sparse.num_positions,
        "hard_attention": sparse is not None and sparse.hard,
        "video_positions": model.positions is not None,
        "tokenizer": tokenizer.to_plain(),
    }


def rebuild_captioner(upstream: UpstreamInfo, state: dict[str, Any]) -> tuple[CaptionModel, SubwordTokenizer]:
    """The captioner that `plain_captioner` described, its weights random; no data, folder or decoder is needed."""
    config = from_plain(AlbertConfig, state["decoder_config"], "the checkpoint's caption decoder")
    decoder = AlbertForImageCaptioning(config, state["num_table_positions"], state["hard_attention"])
    steps = num_steps(upstream) if state["video_positions"] else None
    return CaptionModel(decoder, upstream.num_positions, steps), tokenizer_from_plain(state["tokenizer"])


def num_steps(upstream: UpstreamInfo) -> int:
    """Positions in time, of which the upstream's positions are a multiple; all of them where that is not known."""
    steps = -(-upstream.frames_per_clip // max(1, upstream.samples_per_position))  # Video Swin fills up the last one
    return steps if steps and upstream.num_positions % steps == 0 else upstream.num_positions


def _take_from_upstream(
    upstream: UpstreamInfo, given: dict[str, Any], config: CaptionModelConfig, embedded: bool
) -> tuple[CaptionModel, SubwordTokenizer]:
    source = f"the caption decoder of upstream '{upstream.name}'"
    decoder_config = from_plain(AlbertConfig, given["config"], source)
    decoder_config = decoder_config.replace(img_feature_dim=None if embedded else upstream.feature_size)
    hard = given["hard_attention"] if config.hard_attention is None else config.hard_attention
    weights = given["weights"]
    table = weights.get(SPARSE_TABLE)
    decoder = AlbertForImageCaptioning(decoder_config, None if table is None else len(table), hard)
    projection = {key: value for key, value in decoder.state_dict().items() if PROJECTION in key}
    load_weights(decoder, {**weights, **projection}, source)
    log.info("caption decoder: %d weights of %s; %s", len(weights), source, _said_of_features(upstream, embedded))
    steps = num_steps(upstream) if config.video_positions and not embedded else None
    return CaptionModel(decoder, upstream.num_positions, steps), tokenizer_from_plain(given["tokenizer"])


def _said_of_features(upstream: UpstreamInfo, embedded: bool) -> str:
    if embedded:
        return "its features (H_0) enter as they are: the model that was pretrained"
    return f"a new projection takes features of width {upstream.feature_size}"


def _take_from_folder(
    upstream: UpstreamInfo, config: CaptionModelConfig
) -> tuple[AlbertForImageCaptioning, SubwordTokenizer]:
    def build(own: AlbertConfig) -> AlbertForImageCaptioning:
        own = own.replace(img_feature_dim=upstream.feature_size)
        return AlbertForImageCaptioning(own, *_sparse_arguments(upstream, config))

    decoder, tokenizer = load_folder(config.albert, build), load_tokenizer(config.albert)
    if tokenizer.vocab_size > decoder.config.vocab_size:
        raise UserError(
            f"model.albert: the tokenizer of {config.albert} has {tokenizer.vocab_size} word pieces, its model "
            f"{decoder.config.vocab_size}; they do not belong together"
        )
    log.info("caption decoder: weights of %s; %s", config.albert, _said_of_features(upstream, embedded=False))
    return decoder, tokenizer


def _random_captioner(
    upstream: UpstreamInfo, config: CaptionModelConfig, captions: list[str]
) -> tuple[AlbertForImageCaptioning, SubwordTokenizer]:
    tokenizer = AlbertTokenizer.train(captions, config.vocab_size)
    shape = config.decoder_config(upstream.feature_size, tokenizer.vocab_size, tokenizer.pad_id)
    log.info(
        "caption decoder: random weights (neither the upstream nor model.albert gives any); "
        "a tokenizer of %d word pieces, trained on %d captions",
        *(tokenizer.vocab_size, len(captions)),
    )
    return AlbertForImageCaptioning(shape, *_sparse_arguments(upstream, config)), tokenizer


def _sparse_arguments(upstream: UpstreamInfo, config: CaptionModelConfig) -> tuple[int | None, bool]:
    return upstream.num_positions if config.sparse_attention else None, bool(config.hard_attention)
