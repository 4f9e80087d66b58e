"""Folders of models in Hugging Face's layout: `config.json`, the weights, and the tokenizer's file.

Reading and writing is strict: every weight has its place, and what is left out or begins anew is said in a line.
"""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.weight_names import BUFFERS, PREDICTIONS, peer_names
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import load_weights, select_weights
from mynah.utility.experiments.integrity import some_of
from mynah.utility.experiments.weight_files import load_tensors

if TYPE_CHECKING:
    from mynah.utility.albert.encoding import SubwordTokenizer

LOG = logging.getLogger("mynah.albert")
Model = TypeVar("Model", bound=nn.Module)
Weights = dict[str, Tensor]

SAFETENSORS, TORCH_FILE = "model.safetensors", "pytorch_model.bin"
# What a model may have and another not.
PARTS = (
    "albert.pooler",
    "albert.img_embedding",
    "predictions",
    "sentence_order",
    "classifier",
    "qa_outputs",
    "sparse_attention",
)
ARCHITECTURES = {
    "AlbertModel": "Model",
    "AlbertForPreTraining": "ForPreTraining",
    "AlbertForSequenceClassification": "ForSequenceClassification",
    "AlbertForQuestionAnswering": "ForQuestionAnswering",
    "AlbertForImageCaptioning": "ForMaskedLM",
}


class PretrainedFolder:
    """Mixed into a model: reads itself from a folder and writes itself to one."""

    @classmethod
    def from_pretrained(cls: type[Model], folder: str | Path) -> Model:
        """See `load_folder`."""
        return load_folder(folder, cls)

    def save_pretrained(self, folder: str | Path, tokenizer: "SubwordTokenizer | None" = None) -> None:
        """See the function `save_pretrained`."""
        save_pretrained(self, folder, tokenizer)


def load_folder(
    folder: str | Path, model_class: type[Model], config: AlbertConfig | None = None, **arguments: Any
) -> Model:
    """The model in a folder of an official ALBERT or BERT, or of `save_pretrained`; in training mode.

    config: in place of the folder's; arguments: those of model_class beside the configuration. Parts that the file
    does not have (a head, say) keep their random weights, with a warning; parts that the model does not have are left
    out, with a line in the log. Raises UserError for a folder without config.json or weights, and for weights that do
    not fit.
    """
    config = read_config(folder) if config is None else config
    path, weights = read_weights(folder)
    if config.tie_word_embeddings and not is_tied(weights):
        LOG.info("%s: word pieces are scored by weights of their own (tie_word_embeddings: false)", path)
        config = config.replace(tie_word_embeddings=False)
    model = model_class(config, **arguments)
    load_parts(model, convert_from_huggingface(weights, config), path)
    return model


def save_pretrained(model: nn.Module, folder: str | Path, tokenizer: "SubwordTokenizer | None" = None) -> None:
    """Write `config.json`, `model.safetensors` and the tokenizer's files, as Hugging Face reads them."""
    from safetensors.torch import save_file

    folder, config = Path(folder), model.config
    folder.mkdir(parents=True, exist_ok=True)
    weights = convert_to_huggingface(_named_weights(model), config)
    weights = {name: weight.detach().cpu() for name, weight in weights.items()}
    architecture = ARCHITECTURES.get(type(model).__name__)
    content = config.to_huggingface()
    if architecture is not None:
        content["architectures"] = [config.model_type.capitalize() + architecture]
    _replace(folder / SAFETENSORS, lambda path: save_file(weights, path, metadata={"format": "pt"}))
    _replace(folder / "config.json", lambda path: path.write_text(json.dumps(content, indent=2) + "\n", "utf-8"))
    if tokenizer is not None:
        tokenizer.save(folder)


def load_parts(model: nn.Module, weights: Weights, source: str | Path) -> None:
    """Load weights that have our names (those of a model with heads); see `load_folder` for what may differ."""
    own = _named_weights(model)
    fresh = tuple(f"{part}." for part in PARTS if _has(own, part) and not _has(weights, part))
    unused = tuple(f"{part}." for part in PARTS if _has(weights, part) and not _has(own, part))
    for names, what, level in (
        (fresh, "not in the file, so with new random weights", logging.WARNING),
        (unused, "in the file, but not part of this model: left out", logging.INFO),
    ):
        if names:
            LOG.log(level, "%s: %s: %s", source, what, ", ".join(name.removesuffix(".") for name in names))
    fitting = {name: weight for name, weight in weights.items() if not name.startswith(unused)}
    fitting |= {name: weight for name, weight in own.items() if name.startswith(fresh)}
    if not hasattr(model, "albert"):  # the trunk alone
        if strangers := sorted(name for name in fitting if not name.startswith("albert.")):
            raise UserError(f"{source}: holds weights that are no part of any such model: {some_of(strangers)}")
        fitting = select_weights(fitting, "albert.")
    load_weights(model, fitting, source)


def read_config(folder: str | Path) -> AlbertConfig:
    """The `config.json` of a folder."""
    path = Path(folder).expanduser() / "config.json"
    if not path.parent.is_dir():
        place = Path(folder)
        may_be_a_name = not place.is_absolute() and str(folder)[:1] not in ".~" and len(place.parts) <= 2
        fetch = f"fetch it first (hf download {folder} --local-dir FOLDER) and give FOLDER"
        advice = f". Models are not downloaded by their name: {fetch}" if may_be_a_name else ""
        raise UserError(f"{folder}: no such folder; expected one with config.json and weights{advice}")
    if not path.is_file():
        raise UserError(f"{folder}: no config.json there; expected the folder of an ALBERT or BERT of Hugging Face")
    try:
        return AlbertConfig.from_huggingface(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # bad JSON, bad UTF-8
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_weights(folder: str | Path) -> tuple[Path, Weights]:
    """The file of weights in a folder, `model.safetensors` before `pytorch_model.bin`, and what it holds."""
    folder = Path(folder).expanduser()
    path = next((folder / name for name in (SAFETENSORS, TORCH_FILE) if (folder / name).is_file()), None)
    if path is None:
        sharded = " (weights in several files are not supported)" if list(folder.glob("*.index.json")) else ""
        raise UserError(f"{folder}: neither {SAFETENSORS} nor {TORCH_FILE} there{sharded}")
    try:
        weights = load_tensors(path)
    except Exception as error:  # bytes that are something else make the readers fail in many ways
        size = path.stat().st_size
        raise UserError(f"{path}: not readable ({size} bytes: truncated, or another kind of file)") from error
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise UserError(f"{path}: holds something else than weights by name")
    return path, weights


def is_tied(weights: Weights) -> bool:
    """Whether word pieces are scored by their embeddings, in weights of Hugging Face's names under any prefix."""
    decoders = [weight for name, weight in weights.items() if name.endswith("predictions.decoder.weight")]
    embeddings = [weight for name, weight in weights.items() if name.endswith("word_embeddings.weight")]
    return all(torch.equal(decoder, embedding) for decoder in decoders for embedding in embeddings)


def convert_from_huggingface(weights: Weights, config: AlbertConfig, prefix: str = "") -> Weights:
    """Weights in Hugging Face's names, those under `prefix`, with it -> in our names, those of a model with heads.

    Takes the names of ALBERT or BERT, as config has it, with or without the "albert." or "bert." before all of them
    and with the gamma and beta of 2018. Names that it does not know stay, for strict loading to tell. Raises
    UserError where a layer's query, key and value are not all there, and for an output layer of its own
    (`is_tied`) though config has tie_word_embeddings.
    """
    weights = {_modern(name): weight for name, weight in select_weights(weights, prefix).items()}
    base = f"{config.model_type}."
    if not any(name.startswith(base) for name in weights):
        weights = {base + name: weight for name, weight in weights.items()}
    weights = {name: weight for name, weight in weights.items() if not name.endswith(BUFFERS)}
    converted = _take_output_layer(weights, config)
    for ours, theirs in peer_names(config):
        for kind in ("weight", "bias"):
            names = [f"{name}.{kind}" for name in theirs]
            parts = [weights.pop(name) for name in names if name in weights]
            if parts and len(parts) < len(names):
                raise UserError(f"of {', '.join(names)} only {len(parts)} are there")
            if parts:
                converted[f"{ours}.{kind}"] = torch.cat(parts) if len(parts) > 1 else parts[0]
    known = {f"albert.{name.removeprefix(base)}" if name.startswith(base) else name: name for name in weights}
    return converted | {ours: weights[name] for ours, name in known.items()}


def convert_to_huggingface(weights: Weights, config: AlbertConfig) -> Weights:
    """The opposite of `convert_from_huggingface`."""
    base, head = f"{config.model_type}.", PREDICTIONS[config.model_type]
    weights, converted = dict(weights), {}
    for ours, theirs in peer_names(config):
        for kind in ("weight", "bias"):
            if f"{ours}.{kind}" in weights:
                parts = weights.pop(f"{ours}.{kind}").chunk(len(theirs))
                converted |= {f"{name}.{kind}": part for name, part in zip(theirs, parts, strict=True)}
    if "predictions.bias" in weights:
        converted[f"{head}.bias"] = weights.pop("predictions.bias")
    if "predictions.decoder.weight" in weights:
        converted[f"{head}.decoder.weight"] = weights.pop("predictions.decoder.weight")
        converted[f"{head}.decoder.bias"] = converted[f"{head}.bias"].clone()
    for name, weight in weights.items():
        converted[base + name.removeprefix("albert.") if name.startswith("albert.") else name] = weight
    return converted


def _take_output_layer(weights: Weights, config: AlbertConfig) -> Weights:
    """Take the output layer out of `weights`; the file may hold each of its tensors under several names."""
    head = PREDICTIONS[config.model_type]
    decoder = weights.pop(f"{head}.decoder.weight", None)
    biases = [weights.pop(name, None) for name in (f"{head}.bias", f"{head}.decoder.bias")]
    if not config.tie_word_embeddings:
        biases.reverse()  # then the decoder's is the one that is used
    bias = next((bias for bias in biases if bias is not None), None)
    taken = {} if bias is None else {"predictions.bias": bias}
    if decoder is None:
        return taken
    if not config.tie_word_embeddings:
        return {**taken, "predictions.decoder.weight": decoder}
    embeddings = weights.get(f"{config.model_type}.embeddings.word_embeddings.weight")
    if embeddings is not None and not torch.equal(decoder, embeddings):
        raise UserError(
            f"{head}.decoder.weight differs from the word embeddings, which a configuration with "
            "tie_word_embeddings: true has in its place; set it to false"
        )
    return taken


def _modern(name: str) -> str:
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _named_weights(model: nn.Module) -> Weights:
    """A model's weights as a model with heads has them, all of ALBERT under "albert."."""
    prefix = "" if hasattr(model, "albert") else "albert."
    return {prefix + name: weight for name, weight in model.state_dict().items()}


def _has(weights: Weights, part: str) -> bool:
    return any(name.startswith(f"{part}.") for name in weights)


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name and rename it, so that an earlier one stays whole until then."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: could not be written ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)
