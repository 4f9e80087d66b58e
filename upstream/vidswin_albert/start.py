"""What a new pretraining run begins with: word pieces, and published weights."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utility.albert.huggingface import convert_from_huggingface, load_parts, read_config, read_weights
from utility.albert.tokenizer import AlbertTokenizer, tokenizer_from_plain
from utility.albert.wordpiece import WordPieceTokenizer
from utility.caption_corpus import CaptionedClip
from utility.checkpoint import CARD
from utility.errors import UserError

from .config import PretrainConfig
from .model import VidSwinAlbert
from .swin_weights import load_swin

log = logging.getLogger("mynah")

TOKENIZERS = {"spiece.model": AlbertTokenizer, "vocab.txt": WordPieceTokenizer}


def tokenizer_of(checkpoint: dict[str, Any]) -> Any:
    """The word pieces that a pretraining checkpoint brings."""
    return tokenizer_from_plain(checkpoint[CARD]["tokenizer"])


def choose_tokenizer(config: PretrainConfig, clips: Sequence[CaptionedClip]) -> Any:
    """The published ones of `init.albert`, those of a file, or word pieces trained on the clips' captions.

    Settles `config.model.albert` with it: the number of word pieces and, of `init.albert`, the whole shape.
    """
    albert = config.model.albert
    if config.init.albert:
        published = read_config(config.init.albert)
        config.model.albert = dataclasses.replace(published, img_feature_dim=albert.img_feature_dim)
        tokenizer = read_tokenizer(_tokenizer_file(Path(config.init.albert).expanduser()))
        if tokenizer.vocab_size > published.vocab_size:
            raise UserError(
                f"{config.init.albert}: {tokenizer.vocab_size} word pieces, but embeddings for {published.vocab_size}"
            )
        log.info("model.albert and word pieces are those of %s", config.init.albert)
        return tokenizer
    if config.tokenizer.file:
        tokenizer = read_tokenizer(Path(config.tokenizer.file).expanduser())
    else:
        tokenizer = AlbertTokenizer.train([text for clip in clips for text in clip.captions], albert.vocab_size)
        log.info("%d word pieces, learned from the training captions", tokenizer.vocab_size)
    config.model.albert = dataclasses.replace(albert, vocab_size=tokenizer.vocab_size)
    return tokenizer


def read_tokenizer(path: Path) -> Any:
    """A spiece.model or vocab.txt. Raises UserError for anything else."""
    kind = next((kind for name, kind in TOKENIZERS.items() if path.suffix == Path(name).suffix), None)
    if kind is None:
        raise UserError(f"{path}: is neither a sentencepiece model (.model) nor a WordPiece vocabulary (.txt)")
    return kind.from_file(path)


def load_published(model: VidSwinAlbert, config: PretrainConfig) -> None:
    """Load the weights that the section `init` names. Raises UserError where they do not fit the model."""
    if config.init.swin:
        kind = load_swin(model.swin, config.init.swin)
        log.info("Video Swin begins with %s (%s)", config.init.swin, kind)
    if config.init.albert:
        path, weights = read_weights(config.init.albert)
        load_parts(model.captioner, convert_from_huggingface(weights, config.model.albert), path)
        log.info("ALBERT begins with %s", path)


def _tokenizer_file(folder: Path) -> Path:
    found = next((folder / name for name in TOKENIZERS if (folder / name).is_file()), None)
    if found is None:
        raise UserError(f"{folder}: neither {' nor '.join(TOKENIZERS)} there; init.albert needs word pieces too")
    return found
