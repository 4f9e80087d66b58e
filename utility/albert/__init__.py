"""ALBERT (and BERT): configuration, models, tokenizer, captioning and generation, in Hugging Face's formats.

Its public names can be imported from here.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    "AlbertConfig": "config",
    "AlbertForImageCaptioning": "captioning",
    "AlbertForPreTraining": "heads",
    "AlbertForQuestionAnswering": "heads",
    "AlbertForSequenceClassification": "heads",
    "AlbertModel": "model",
    "AlbertTokenizer": "tokenizer",
    "GenerationConfig": "generation",
    "WordPieceTokenizer": "wordpiece",
    "generate": "generation",
    "get_albert_model": "build",
    "load_tokenizer": "tokenizer",
}
"""Name -> its module, which is imported when the name is first used."""

__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
