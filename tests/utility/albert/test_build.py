"""One call for model, configuration and tokenizer: new, or from an official folder."""

from argparse import Namespace
from dataclasses import dataclass

import pytest
import torch

from mynah.utility.albert.build import get_albert_model
from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.tokenizer import AlbertTokenizer
from mynah.utility.albert.wordpiece import WordPieceTokenizer
from mynah.utility.errors import UserError
from tests.utility.albert.peers import build_peer

TEXTS = [f"a {color} {shape} moves {way}" for color in ("red", "blue") for shape in ("box", "ring") for way in "xyz"]
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 3}
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(chr(97 + index) for index in range(26))]


@dataclass
class Arguments:
    tokenizer_texts: list[str]
    vocab_size: int = 40
    hidden_size: int = 16
    num_attention_heads: int = 2
    intermediate_size: int = 24
    num_hidden_layers: int = 3
    num_hidden_groups: int | None = None
    model_name_or_path: str = ""
    num_video_positions: int = 4
    lr: float = 3e-4  # not ours


@pytest.mark.parametrize("args", [Arguments(TEXTS), Namespace(**vars(Arguments(TEXTS)))])
def test_a_new_model_fits_the_tokenizer_that_it_trains(args):
    model, config, tokenizer = get_albert_model(args)
    assert isinstance(model, AlbertForImageCaptioning) and isinstance(tokenizer, AlbertTokenizer)
    assert model.config is config
    assert config.vocab_size == tokenizer.vocab_size <= 40 and config.pad_token_id == tokenizer.pad_id
    assert (config.num_hidden_layers, config.num_hidden_groups, config.embedding_size) == (3, 1, 128)
    assert model.sparse_attention.table.shape == (4, 4)
    ids = torch.tensor([[tokenizer.encode("a red box").ids]])
    scores = model(ids, torch.ones_like(ids, dtype=torch.bool), model.embed_video(torch.zeros(1, 4, 512)))
    assert scores.shape == (1, 1, ids.shape[-1], tokenizer.vocab_size)


def test_a_new_bert_needs_only_its_sizes(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(BERT_WORDS))
    args = Namespace(model_type="bert", tokenizer_name_or_path=str(tmp_path / "vocab.txt"), **SIZES)
    _, config, tokenizer = get_albert_model(args)
    assert isinstance(tokenizer, WordPieceTokenizer) and config.vocab_size == len(BERT_WORDS)
    assert (config.num_hidden_groups, config.embedding_size, config.hidden_act) == (3, 16, "gelu")
    args.do_lower_case = False
    assert not get_albert_model(args)[2].lower_case
    args.tokenizer_name_or_path = str(tmp_path)
    assert get_albert_model(args)[2].vocabulary == BERT_WORDS


@pytest.mark.parametrize("variant", ["albert, groups and inner layers", "bert"])
def test_an_official_folder_is_all_it_takes(variant, tmp_path):
    tokenizer = WordPieceTokenizer(BERT_WORDS) if variant == "bert" else AlbertTokenizer.train(TEXTS, 40)
    peer = build_peer(variant, "ForPreTraining", vocab_size=tokenizer.vocab_size)
    peer.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    args = Namespace(model_name_or_path=str(tmp_path), img_feature_dim=6, hidden_dropout_prob=0.3, vocab_size=None)
    model, config, read = get_albert_model(args)
    assert read.to_plain().keys() == tokenizer.to_plain().keys() and read.vocab_size == config.vocab_size
    assert (config.img_feature_dim, config.hidden_dropout_prob) == (6, 0.3)
    words = peer.get_input_embeddings().weight
    assert torch.equal(model.albert.embeddings.word_embeddings.weight, words)
    assert model.embed_video(torch.zeros(1, 2, 6)).shape == (1, 2, 16)
    other = AlbertTokenizer.train(TEXTS[:3], 25)
    other.save(tmp_path / "other")
    args.tokenizer_name_or_path = str(tmp_path / "other")
    with pytest.raises(UserError, match=f"a model of {config.vocab_size} word pieces, but a tokenizer of"):
        get_albert_model(args)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no tokenizer: give tokenizer_name_or_path"),
        ({"tokenizer_texts": TEXTS, "vocab_size": 40, "num_attention_heads": 5}, "5 does not divide hidden_size 768"),
        ({"tokenizer_texts": TEXTS, "vocab_size": 40, "hidden_size": "wide"}, "hidden_size: expected a whole number"),
        (
            {"tokenizer_texts": TEXTS, "vocab_size": 40, "model_type": "bert", "embedding_size": 128},
            "embedding_size: model_type bert has embedding_size = hidden_size = 768, got 128",
        ),
        ({"model_name_or_path": "nowhere"}, "nowhere: neither spiece.model"),
    ],
)
def test_what_cannot_be_built_is_one_clear_error(fields, message):
    with pytest.raises(UserError, match=message):
        get_albert_model(Namespace(**fields))
