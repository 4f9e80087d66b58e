"""Hugging Face's config.json, both ways; impossible values are refused."""

import pytest
import transformers

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.configuration.load import to_plain
from mynah.utility.configuration.problems import validate
from mynah.utility.errors import UserError
from tests.utility.albert.peers import ALBERT, BERT, VARIANTS

OFFICIAL_ALBERT = {  # albert-base-v2's, as it is published
    "architectures": ["AlbertForMaskedLM"],
    "attention_probs_dropout_prob": 0,
    "bos_token_id": 2,
    "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1,
    "embedding_size": 128,
    "eos_token_id": 3,
    "gap_size": 0,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "inner_group_num": 1,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "albert",
    "net_structure_type": 0,
    "num_attention_heads": 12,
    "num_hidden_groups": 1,
    "num_hidden_layers": 12,
    "num_memory_blocks": 0,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30000,
}
OLD_BERT = {  # bert-base-uncased's of 2018
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


def test_the_defaults_are_albert_base():
    assert AlbertConfig.from_huggingface(OFFICIAL_ALBERT) == AlbertConfig()


def test_a_file_without_model_type_is_an_old_berts():
    config = AlbertConfig.from_huggingface(OLD_BERT)
    assert (config.model_type, config.vocab_size, config.hidden_act) == ("bert", 30522, "gelu")
    assert (config.embedding_size, config.num_hidden_groups, config.inner_group_num) == (768, 12, 1)
    assert config.classifier_dropout_prob == config.hidden_dropout_prob == 0.1
    without_type = {name: value for name, value in OFFICIAL_ALBERT.items() if name != "model_type"}
    assert AlbertConfig.from_huggingface(without_type).model_type == "albert"


@pytest.mark.parametrize("model_type", ["albert", "bert"])
def test_what_a_file_does_not_say_is_as_hugging_face_has_it(model_type):
    theirs = {"albert": transformers.AlbertConfig, "bert": transformers.BertConfig}[model_type]()
    assert AlbertConfig.from_huggingface({"model_type": model_type}) == AlbertConfig.from_huggingface(
        theirs.to_dict()
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("num_labels", [2, 5])
def test_hugging_face_reads_what_we_write(variant, num_labels):
    kind, sizes = ("Bert", BERT) if variant.startswith("bert") else ("Albert", ALBERT)
    peer_class = getattr(transformers, f"{kind}Config")
    fields = {**sizes, **VARIANTS[variant], "num_labels": num_labels, "hidden_dropout_prob": 0.2}
    theirs = peer_class(**fields)
    ours = AlbertConfig.from_huggingface(theirs.to_dict())
    assert ours.num_labels == num_labels
    back = peer_class(**ours.to_huggingface())
    for name in fields:
        if name != "attn_implementation":
            assert getattr(back, name) == getattr(theirs, name)
    assert AlbertConfig.from_huggingface(ours.to_huggingface()) == ours


def test_image_features_survive_the_file():
    for width in (None, 77):
        config = AlbertConfig(img_feature_dim=width)
        assert AlbertConfig.from_huggingface(config.to_huggingface()) == config


def test_a_classifiers_dropout_of_bert_may_be_its_own():
    content = {**OLD_BERT, "classifier_dropout": 0.3}
    config = AlbertConfig.from_huggingface(content)
    assert config.classifier_dropout_prob == 0.3
    assert transformers.BertConfig(**config.to_huggingface()).classifier_dropout == 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not one of albert, bert"),
        ({"hidden_act": "mish"}, "hidden_act: 'mish' is not one of gelu, gelu_new"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not supported"),
        ({"is_decoder": True}, "is_decoder True is not supported"),
        ({"hidden_size": "wide"}, "hidden_size: expected a whole number"),
        ({"num_attention_heads": 7}, "7 does not divide hidden_size 768"),
    ],
)
def test_other_models_and_impossible_values_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        AlbertConfig.from_huggingface({**OFFICIAL_ALBERT, **changes})


def test_a_file_that_holds_no_mapping_is_refused():
    with pytest.raises(UserError, match="expected a mapping of names to values, got list"):
        AlbertConfig.from_huggingface([1, 2])


def test_every_impossible_value_is_named():
    wrong = {
        "model_type": "alberta",
        "vocab_size": 0,
        "embedding_size": -1,
        "max_position_embeddings": 0,
        "type_vocab_size": 0,
        "num_labels": 0,
        "img_feature_dim": 0,
        "pad_token_id": 30000,
        "classifier_dropout_prob": 1.0,
    }
    for name, value in wrong.items():
        assert [key for key, _ in validate(AlbertConfig, {name: value})[1]] == [name]
    everything = {key for key, _ in validate(AlbertConfig, wrong)[1]}
    assert everything == wrong.keys() - {"pad_token_id"}  # possible by itself; rules across fields come afterwards
    assert not validate(AlbertConfig, {})[1]


def test_bert_owns_every_layer_and_has_no_narrow_embeddings():
    config = AlbertConfig.from_huggingface(OLD_BERT)
    for name, value in (("embedding_size", 128), ("num_hidden_groups", 1), ("inner_group_num", 2)):
        ((key, problem),) = validate(AlbertConfig, {**to_plain(config), name: value})[1]
        assert key == name and problem.startswith("model_type bert has")
