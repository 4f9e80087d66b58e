"""SwinBERT's released checkpoints (`model.bin`: Video Swin, BERT, mask table) as checkpoints of vidswin_albert."""

import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.huggingface import convert_from_huggingface, is_tied
from mynah.utility.albert.sparse_attention import SPARSE_TABLE
from mynah.utility.albert.wordpiece import WordPieceTokenizer
from mynah.utility.configuration.load import to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, load_weights, make_metadata, select_weights
from mynah.utility.experiments.weight_files import read_weights

from .config import ModelSection, VidSwinAlbertConfig
from .model import VidSwinAlbert
from .swin_weights import convert_state_dict
from .video_swin import VideoSwinConfig

HEAD_SIZE = 64
"""Width of a head of every published BERT."""
WINDOWS = {15 * 13 * 13: [8, 7, 7], 15 * 23 * 23: [8, 12, 12]}
"""The window that a relative position bias table of that many rows belongs to."""
TABLE = "learn_vid_att.weight"


def convert_swinbert(
    path: str | Path, vocabulary: str | Path, frame_size: int = 224, num_frames: int | None = None
) -> dict[str, Any]:
    """The content of a pretraining checkpoint of vidswin_albert, in the BERT configuration.

    path: SwinBERT's model.bin; vocabulary: the vocab.txt of bert-base-uncased. num_frames: what the model was trained
    with; it follows from the mask table where there is one. Every weight is accounted for.
    Raises UserError for anything else.
    """
    weights = read_weights(path, "SwinBERT's model.bin")
    tokenizer = WordPieceTokenizer.from_file(vocabulary)
    config = configuration_of(weights, frame_size, num_frames, path)
    if tokenizer.vocab_size != config.albert.vocab_size:
        raise UserError(
            f"{vocabulary}: {tokenizer.vocab_size} word pieces, but {path} has embeddings for "
            f"{config.albert.vocab_size}; it was trained with the vocabulary of bert-base-uncased"
        )
    model = VidSwinAlbert(config)
    load_weights(model, convert_weights(weights, config, path), path)
    metadata = make_metadata(
        "pretrain",
        "vidswin_albert",
        to_plain(ModelSection(model=config)),
        step=0,
        tokenizer=tokenizer.to_plain(),
        converted_from=str(path),
    )
    return {METADATA: metadata, "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}}


def convert_weights(weights: dict[str, Tensor], config: VidSwinAlbertConfig, path: str | Path) -> dict[str, Tensor]:
    """SwinBERT's weights under the names of VidSwinAlbert; names that it does not know stay, for strict loading."""
    swin = convert_state_dict(select_weights(weights, "swin."), config.swin, path)
    bert = convert_from_huggingface(weights, config.albert, "trans_encoder.")
    table = {} if TABLE not in weights else {SPARSE_TABLE: _square(weights[TABLE])}
    others = ("swin.", "trans_encoder.", "fc.", TABLE)
    return {
        **{f"swin.{key}": value for key, value in swin.items()},
        **{f"captioner.{key}": value for key, value in {**bert, **table}.items()},
        **{f"projection.{key}": value for key, value in select_weights(weights, "fc.").items()},
        **{key: value for key, value in weights.items() if not key.startswith(others)},
    }


def configuration_of(
    weights: dict[str, Tensor], frame_size: int, num_frames: int | None, path: str | Path
) -> VidSwinAlbertConfig:
    """The shape of a SwinBERT, read from the shapes of its weights."""
    try:
        swin, albert = _swin_shape(select_weights(weights, "swin.backbone.")), _bert_shape(weights)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{path}: not a checkpoint of SwinBERT ({error} is not as expected); expected swin.backbone.*, "
            "trans_encoder.bert.*, fc.* and learn_vid_att.weight"
        ) from error
    config = VidSwinAlbertConfig(swin=swin, albert=albert, frame_size=frame_size, sparse_attention=TABLE in weights)
    config.num_frames = _count_frames(weights, config, num_frames, path)
    return config


def _count_frames(
    weights: dict[str, Tensor], config: VidSwinAlbertConfig, given: int | None, path: str | Path
) -> int:
    places = math.ceil(config.frame_size / config.swin.patch_size[1])
    for _ in config.swin.depths[1:]:
        places = math.ceil(places / 2)
    if TABLE not in weights:
        if given is None:
            raise UserError(f"{path}: has no mask table that would tell how many frames it takes; give --num-frames")
        return given
    positions = len(_square(weights[TABLE]))
    steps, rest = divmod(positions, places**2)
    frames = steps * config.swin.patch_size[0]
    if rest or given not in (None, frames):
        frames_given = f"{given} frames do" if given else "no number of frames does"
        raise UserError(
            f"{path}: its mask table is of {positions} video tokens; frames of {config.frame_size} pixels have "
            f"{places**2} each two, so {frames_given} not fit; give another --frame-size"
            + (" or --num-frames" if given else "")
        )
    return frames


def _swin_shape(weights: dict[str, Tensor]) -> VideoSwinConfig:
    patch = weights["patch_embed.proj.weight"]
    blocks = {match.groups() for key in weights if (match := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", key))}
    stages = range(1 + max(int(stage) for stage, _ in blocks))
    tables = [weights[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in stages]
    return VideoSwinConfig(
        embed_dim=patch.shape[0],
        depths=[sum(int(of) == stage for of, _ in blocks) for stage in stages],
        num_heads=[table.shape[1] for table in tables],
        patch_size=list(patch.shape[2:]),
        window_size=WINDOWS[len(tables[0])],
    )


def _bert_shape(weights: dict[str, Tensor]) -> AlbertConfig:
    bert = select_weights(weights, "trans_encoder.bert.")
    vocab_size, hidden_size = bert["embeddings.word_embeddings.weight"].shape
    layers = {match[1] for key in bert if (match := re.match(r"encoder\.layer\.(\d+)\.", key))}
    return AlbertConfig(
        model_type="bert",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        embedding_size=hidden_size,
        num_hidden_layers=len(layers),
        num_hidden_groups=len(layers),
        num_attention_heads=max(1, hidden_size // HEAD_SIZE),
        intermediate_size=len(bert["encoder.layer.0.intermediate.dense.bias"]),
        max_position_embeddings=len(bert["embeddings.position_embeddings.weight"]),
        type_vocab_size=len(bert["embeddings.token_type_embeddings.weight"]),
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        img_feature_dim=bert["img_embedding.weight"].shape[1],
        tie_word_embeddings=is_tied(weights),
    )


def _square(table: Tensor) -> Tensor:
    """(N * N, 1) -> (N, N)."""
    size = math.isqrt(table.numel())
    return table.reshape(size, size)
