"""The shape of an ALBERT or BERT, and its translation from and to Hugging Face's `config.json`."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from mynah.utility.configuration.problems import validate
from mynah.utility.configuration.sections import one_of, rules
from mynah.utility.errors import UserError
from mynah.utility.nn.encoder import ACTIVATIONS, EncoderConfig

MODEL_TYPES = ("albert", "bert")
SPARSE_FORMS = ("swinbert", "log")


class AlbertConfig(EncoderConfig):
    """albert-base-v2, unless told otherwise. What is not documented here is in `EncoderConfig`.

    "bert" is the same encoder with a group of weights for every layer and embeddings as wide as a hidden state, so
    without the mapping from the one width to the other.
    """

    model_type: Annotated[str, one_of(MODEL_TYPES)] = "albert"
    """albert, or bert: num_hidden_groups = num_hidden_layers, inner_group_num = 1, embedding_size = hidden_size."""
    num_hidden_layers: int = Field(12, ge=1, le=10_000)
    """Layers that a position passes through."""
    hidden_act: Annotated[str, one_of(ACTIVATIONS)] = "gelu_new"
    """gelu, gelu_new, relu or silu."""
    vocab_size: int = Field(30000, gt=0)
    """Word pieces, special ones included."""
    embedding_size: int = Field(128, gt=0)
    """Width of the embeddings of words, positions and segments (E of Lan et al. 2020, sec. 3.1)."""
    max_position_embeddings: int = Field(512, gt=0)
    """The longest text, in word pieces."""
    type_vocab_size: int = Field(2, gt=0)
    """Number of segments."""
    pad_token_id: int = Field(0, ge=0)
    """The word piece whose embedding stays zero when trained from scratch."""
    tie_word_embeddings: bool = True
    """Whether word pieces are scored by their own embeddings; SwinBERT scores them by weights of their own."""
    classifier_dropout_prob: float = Field(0.1, ge=0, lt=1)
    """Dropout before the classification heads."""
    num_labels: int = Field(2, gt=0)
    """Outputs of the sequence classification head."""
    img_feature_dim: int | None = Field(512, gt=0)
    """Width of the image features of the captioning model; null where they come hidden_size wide, embedded."""
    sparse_form: Annotated[str, one_of(SPARSE_FORMS)] = "swinbert"
    """How the captioning model's learned sparse attention enters the scores: swinbert or log; sparse_attention.py."""

    @rules
    def _is_an_albert_or_a_bert(self) -> Iterable[str | None]:
        if self.pad_token_id >= self.vocab_size:
            yield f"pad_token_id: must be less than vocab_size ({self.vocab_size}), got {self.pad_token_id}"
        for name, expected in (
            ("embedding_size", "hidden_size"),
            ("num_hidden_groups", "num_hidden_layers"),
        ):
            if self.model_type == "bert" and getattr(self, name) != getattr(self, expected):
                yield (
                    f"{name}: model_type bert has {name} = {expected} = {getattr(self, expected)}, "
                    f"got {getattr(self, name)}"
                )
        if self.model_type == "bert" and self.inner_group_num != 1:
            yield f"inner_group_num: model_type bert has 1, got {self.inner_group_num}"

    @classmethod
    def from_huggingface(cls, content: Mapping[str, Any]) -> "AlbertConfig":
        """The configuration that a `config.json` holds.

        What it does not say is as Hugging Face has it; what matters to other models only is ignored. A file without
        model_type, as those of 2018 are, is BERT's unless it has an embedding_size. Raises UserError for another
        model, for a variant of BERT that these classes are not (relative positions, a decoder), and for values that
        do not fit.
        """
        if not isinstance(content, Mapping):
            raise UserError(f"expected a mapping of names to values, got {type(content).__name__}")
        model_type = content.get("model_type", "albert" if "embedding_size" in content else "bert")
        if model_type not in MODEL_TYPES:
            raise UserError(f"model_type {model_type!r} is not one of {', '.join(MODEL_TYPES)}")
        _refuse_variants(content)
        names = set(cls.model_fields)
        given = {name: value for name, value in content.items() if name in names and value is not None}
        if "img_feature_dim" in content:  # the one that may be null
            given["img_feature_dim"] = content["img_feature_dim"]
        values = {**HUGGING_FACE_DEFAULTS[model_type], **given, "model_type": model_type}
        if model_type == "bert":
            values["embedding_size"] = values["hidden_size"]
            values["num_hidden_groups"], values["inner_group_num"] = values["num_hidden_layers"], 1
            dropout = content.get("classifier_dropout")
            values["classifier_dropout_prob"] = values["hidden_dropout_prob"] if dropout is None else dropout
        if "num_labels" not in content and "id2label" in content:
            values["num_labels"] = len(content["id2label"])
        return checked_config(values)

    def to_huggingface(self) -> dict[str, Any]:
        """The content of a `config.json` that Hugging Face and `from_huggingface` read as this."""
        left_out = BERT_LEFT_OUT if self.model_type == "bert" else {"num_labels"}
        content = {name: getattr(self, name) for name in type(self).model_fields if name not in left_out}
        if self.model_type == "bert":
            content |= {"classifier_dropout": self.classifier_dropout_prob, "position_embedding_type": "absolute"}
        labels = [f"LABEL_{index}" for index in range(self.num_labels)]
        content["id2label"] = {str(index): label for index, label in enumerate(labels)}
        content["label2id"] = {label: index for index, label in enumerate(labels)}
        return content


def checked_config(values: Mapping[str, Any]) -> AlbertConfig:
    """The configuration with these values. Raises UserError, with all of them, for those that are impossible."""
    config, problems = validate(AlbertConfig, dict(values))
    if problems:
        raise UserError("; ".join(f"{key}: {problem}" for key, problem in problems))
    return config


BERT_LEFT_OUT = {
    "num_labels",
    "embedding_size",
    "num_hidden_groups",
    "inner_group_num",
    "classifier_dropout_prob",
}
# Where these differ from the defaults above. ALBERT's are those of xxlarge.
HUGGING_FACE_DEFAULTS: dict[str, dict[str, Any]] = {
    "albert": {"hidden_size": 4096, "num_attention_heads": 64, "intermediate_size": 16384},
    "bert": {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    },
}
# Options of Hugging Face's BERT that change what it computes, and the value that this code has.
COMPUTED_AS = {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}


def _refuse_variants(content: Mapping[str, Any]) -> None:
    for name, supported in COMPUTED_AS.items():
        if content.get(name, supported) not in (supported, None):
            raise UserError(f"{name} {content[name]!r} is not supported, only {supported!r}")
