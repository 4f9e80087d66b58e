"""Initialization of a new pretraining run: its tokenizer and published weights."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.huggingface import convert_from_huggingface, load_parts, read_config, read_weights
from mynah.utility.albert.tokenizer import AlbertTokenizer, load_tokenizer, tokenizer_from_plain
from mynah.utility.albert.wordpiece import WordPieceTokenizer
from mynah.utility.captions.corpus import CaptionedClip
from mynah.utility.configuration.load import from_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA

from .config import OWN_FIELDS, PretrainConfig
from .model import VidSwinAlbert
from .swin_weights import load_swin

log = logging.getLogger("mynah")

TOKENIZERS = {".model": AlbertTokenizer, ".txt": WordPieceTokenizer}


def checkpoint_tokenizer(checkpoint: dict[str, Any]) -> Any:
    """The word pieces that a pretraining checkpoint brings."""
    return tokenizer_from_plain(checkpoint[METADATA]["tokenizer"])


def choose_tokenizer(config: PretrainConfig, clips: Sequence[CaptionedClip]) -> Any:
    """The published ones of `init.albert`, those of a file, or word pieces trained on the clips' captions.

    Settles `config.model.albert` with it: the number of word pieces and, of `init.albert`, all but OWN_FIELDS.
    """
    albert = config.model.albert
    if config.init.albert:
        published = read_config(config.init.albert)
        tokenizer = load_tokenizer(config.init.albert)
        own = {name: getattr(albert, name) for name in OWN_FIELDS}
        config.model.albert = published.replace(pad_token_id=tokenizer.pad_id, **own)
        if tokenizer.vocab_size > published.vocab_size:
            raise UserError(
                f"{config.init.albert}: {tokenizer.vocab_size} word pieces, but embeddings for {published.vocab_size}"
            )
        log.info("model.albert and word pieces are those of %s", config.init.albert)
        return tokenizer
    if config.tokenizer.file:
        tokenizer = read_tokenizer(Path(config.tokenizer.file).expanduser(), config.tokenizer.lower_case)
    else:
        tokenizer = AlbertTokenizer.train([text for clip in clips for text in clip.captions], albert.vocab_size)
        log.info("%d word pieces, learned from the training captions", tokenizer.vocab_size)
    resolve_albert(config, tokenizer)
    return tokenizer


def resolve_albert(config: PretrainConfig, tokenizer: Any) -> None:
    """Give `config.model.albert` the tokenizer's size and padding."""
    albert = config.model.albert
    sizes = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
    config.model.albert = albert.replace(**sizes)


def restore_tokenizer(config: PretrainConfig, checkpoint: dict[str, Any]) -> Any:
    """The word pieces of the run that `checkpoint` is of; settles `config.model.albert` as they were settled then."""
    metadata, tokenizer = checkpoint[METADATA], checkpoint_tokenizer(checkpoint)
    if config.init.albert:
        published = from_plain(AlbertConfig, metadata["config"]["model"]["albert"], "the checkpoint's model.albert")
        own = {name: getattr(config.model.albert, name) for name in OWN_FIELDS}
        config.model.albert = published.replace(**own)
    else:
        resolve_albert(config, tokenizer)
    return tokenizer


def read_tokenizer(path: Path, lower_case: bool) -> Any:
    """A spiece.model or vocab.txt. Raises UserError for anything else."""
    kind = TOKENIZERS.get(path.suffix)
    if kind is None:
        raise UserError(f"{path}: is neither a sentencepiece model (.model) nor a WordPiece vocabulary (.txt)")
    return kind.from_file(path, lower_case)


def load_published(model: VidSwinAlbert, config: PretrainConfig) -> None:
    """Load the weights that the section `init` names. Raises UserError where they do not fit the model."""
    if config.init.swin:
        kind = load_swin(model.swin, config.init.swin)
        log.info("Video Swin begins with %s (%s)", config.init.swin, kind)
    if config.init.albert:
        path, weights = read_weights(config.init.albert)
        load_parts(model.captioner, convert_from_huggingface(weights, config.model.albert), path)
        log.info("ALBERT begins with %s", path)
