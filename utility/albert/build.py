"""One call for a captioning model with its configuration and tokenizer, new or from a folder of published weights."""

from pathlib import Path
from typing import Any

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig, checked_config
from mynah.utility.albert.encoding import SubwordTokenizer
from mynah.utility.albert.huggingface import load_folder, read_config
from mynah.utility.albert.tokenizer import AlbertTokenizer, load_tokenizer
from mynah.utility.albert.wordpiece import VOCAB_FILE, WordPieceTokenizer
from mynah.utility.errors import UserError


def get_albert_model(args: Any) -> tuple[AlbertForImageCaptioning, AlbertConfig, SubwordTokenizer]:
    """The captioning model, its configuration and its tokenizer, which fit one another.

    args: any object, such as argparse's. Of its attributes these are read, if it has them and they are not None:

    - model_name_or_path: folder of an official ALBERT or BERT (config.json, weights, spiece.model or vocab.txt), or
      of `save_pretrained`; without it the weights are random
    - tokenizer_name_or_path: a spiece.model, a vocab.txt, or a folder with one of them; by default the model's folder
    - tokenizer_texts: texts (list of str) to train a tokenizer of vocab_size word pieces from, where none is read
    - do_lower_case: whether the tokenizer that is read lowers case; by default as its folder says, else True
    - num_video_positions, hard_attention: as AlbertForImageCaptioning takes them
    - the fields of AlbertConfig (model_type, num_hidden_layers, img_feature_dim, ...): in place of the folder's, or
      of the defaults, which for model_type "bert" are those of bert-base; but a new model's vocab_size and
      pad_token_id are the tokenizer's

    Raises UserError for impossible values, files that are missing or do not fit, and where there is no tokenizer.
    """
    folder = _given(args, "model_name_or_path")
    values = {name: _given(args, name) for name in AlbertConfig.model_fields}
    values = {name: value for name, value in values.items() if value is not None}
    tokenizer = _tokenizer(args, folder, values.get("vocab_size", AlbertConfig().vocab_size))
    if folder is None:
        values |= {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
    config = _config(folder, values)
    if config.vocab_size != tokenizer.vocab_size:
        raise UserError(f"a model of {config.vocab_size} word pieces, but a tokenizer of {tokenizer.vocab_size}")
    arguments = {name: _given(args, name) for name in ("num_video_positions", "hard_attention")}
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if folder is None:
        model = AlbertForImageCaptioning(config, **arguments)
    else:
        model = load_folder(folder, AlbertForImageCaptioning, config, **arguments)
    return model, model.config, tokenizer


def _given(args: Any, name: str) -> Any:
    value = getattr(args, name, None)
    return None if value == "" else value


def _tokenizer(args: Any, folder: str | None, vocab_size: int) -> SubwordTokenizer:
    source, texts = _given(args, "tokenizer_name_or_path") or folder, _given(args, "tokenizer_texts")
    if source is None:
        if texts is None:
            raise UserError(
                "no tokenizer: give tokenizer_name_or_path (a spiece.model, a vocab.txt or a folder with one), "
                "model_name_or_path (a folder with weights as well), or tokenizer_texts to train one from"
            )
        return AlbertTokenizer.train(texts, vocab_size)
    path, lower_case = Path(source).expanduser(), _given(args, "do_lower_case")
    if not path.is_file():
        return load_tokenizer(path, lower_case)
    kind = WordPieceTokenizer if path.name == VOCAB_FILE or path.suffix == ".txt" else AlbertTokenizer
    return kind.from_file(path, True if lower_case is None else lower_case)


def _config(folder: str | None, values: dict[str, Any]) -> AlbertConfig:
    if folder is not None:
        config = read_config(folder)
    elif values.get("model_type") == "bert":
        config = AlbertConfig.from_huggingface(values)
    else:
        config = AlbertConfig()
    return checked_config({**dict(config), **values})
