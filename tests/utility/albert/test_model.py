"""ALBERT and BERT against Hugging Face's with the same weights, and the contracts of their parts."""

import copy

import pytest
import torch
from torch import nn

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.huggingface import convert_from_huggingface, load_parts
from mynah.utility.albert.model import AlbertModel, MaskedLanguageHead
from tests.utility.albert.peers import VARIANTS, build_peer, close, texts

SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 40,
    "embedding_size": 8,
    "max_position_embeddings": 12,
}


def copy_of(peer: nn.Module) -> AlbertModel:
    config = AlbertConfig.from_huggingface(peer.config.to_dict())
    model = AlbertModel(config).eval()
    load_parts(model, convert_from_huggingface(peer.state_dict(), config), "the peer")
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_everything_it_gives_is_hugging_faces(variant):
    peer = build_peer(variant)
    ids, valid, segments = texts()
    theirs = peer(ids, valid.long(), segments, output_hidden_states=True, output_attentions=True)
    ours = copy_of(peer)(ids, valid, segments, output_attentions=True)
    assert close(ours.pooler_output, theirs.pooler_output)
    assert close(ours.last_hidden_state[valid], theirs.last_hidden_state[valid])
    inner = peer.config.to_dict().get("inner_group_num", 1)
    after_layers = theirs.hidden_states[inner::inner]  # theirs are those inside groups as well
    assert len(ours.hidden_states) == peer.config.num_hidden_layers + 1
    for mine, peers in zip(ours.hidden_states[1:], after_layers, strict=True):
        assert close(mine[valid], peers[valid])
    for mine, peers in zip(ours.attentions, theirs.attentions, strict=True):
        mine, peers = mine.transpose(1, 2), peers.transpose(1, 2)
        assert close(mine[valid], peers[valid])


@torch.no_grad()
def test_without_a_mask_and_segments_everything_is_valid_and_of_the_first_segment():
    peer = build_peer("albert")
    ids, _, _ = texts()
    assert close(copy_of(peer)(ids).last_hidden_state, peer(ids).last_hidden_state)


@torch.no_grad()
def test_positions_may_be_given():
    peer = build_peer("albert")
    ids, _, _ = texts()
    positions = torch.arange(19, 10, -1)[None]
    ours = copy_of(peer)(ids, position_ids=positions).last_hidden_state
    assert close(ours, peer(ids, position_ids=positions).last_hidden_state)


@torch.no_grad()
def test_padding_does_not_change_valid_positions():
    model = AlbertModel(AlbertConfig(**SMALL)).eval()
    ids = torch.tensor([[2, 7, 8, 3]])
    padded = torch.tensor([[2, 7, 8, 3, 0, 0]])
    alone, beside = model(ids), model(padded, padded != 0)
    assert close(beside.last_hidden_state[:, :4], alone.last_hidden_state)
    assert close(beside.pooler_output, alone.pooler_output)


def test_too_long_a_text_is_refused():
    model = AlbertModel(AlbertConfig(**SMALL))
    model(torch.ones(1, 12, dtype=torch.long))
    with pytest.raises(ValueError, match="13 positions, but the model has embeddings for 12"):
        model(torch.ones(1, 13, dtype=torch.long))


def test_initial_weights_are_normal_and_paddings_are_zero():
    config = AlbertConfig(**{**SMALL, "vocab_size": 2000, "initializer_range": 0.05, "pad_token_id": 3})
    model = AlbertModel(config)
    words = model.embeddings.word_embeddings.weight
    assert words[3].abs().max() == 0
    for weight in (words, model.embeddings.mapping.weight, model.encoder.groups[0][0].intermediate.weight):
        assert weight.std().item() == pytest.approx(0.05, rel=0.2)
    assert model.pooler.bias.abs().max() == 0


def test_sharing_makes_albert_small():
    """Counted by hand for albert-base: embeddings, their mapping, one layer, the pooler."""
    hidden, inside, width = 768, 3072, 128
    layer = 4 * (hidden**2 + hidden) + 2 * hidden * inside + inside + hidden + 4 * hidden
    embeddings = (30000 + 512 + 2) * width + 2 * width + width * hidden + hidden
    model = AlbertModel(AlbertConfig())
    assert sum(weight.numel() for weight in model.parameters()) == embeddings + layer + hidden**2 + hidden


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_layer_is_tied_unless_told_otherwise(tied):
    config = AlbertConfig(**SMALL, tie_word_embeddings=tied)
    model = nn.Module()
    model.albert = AlbertModel(config)
    words = model.albert.embeddings.word_embeddings
    model.predictions = MaskedLanguageHead(config, words)
    assert ("predictions.decoder.weight" in model.state_dict()) is not tied
    for one in (model, copy.deepcopy(model)):
        words = one.albert.embeddings.word_embeddings
        one.predictions(torch.randn(2, 16)).sum().backward()
        assert (words.weight.grad is not None) is tied
        with torch.no_grad():
            hidden, before = torch.randn(3, 4, 16), one.predictions.bias.clone()
            words.weight.zero_()
            assert torch.equal(one.predictions(hidden), before.expand(3, 4, -1)) is tied


def test_dropout_is_for_training():
    model = AlbertModel(AlbertConfig(**SMALL, hidden_dropout_prob=0.5))
    ids = torch.ones(1, 6, dtype=torch.long)
    embeddings = model.embeddings
    assert not torch.equal(embeddings(ids), embeddings(ids))
    model.eval()
    assert torch.equal(model(ids).pooler_output, model(ids).pooler_output)


def test_a_mask_is_of_0_and_1_and_of_any_type_the_same():
    torch.manual_seed(0)
    model = AlbertModel(AlbertConfig(**SMALL)).eval()
    ids, mask = torch.randint(0, 40, (2, 6)), torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    kinds = (torch.bool, torch.int64, torch.uint8, torch.float32)
    states = [model(ids, attention_mask=mask.to(kind)).hidden_states[-1] for kind in kinds]
    for other in states[1:]:
        assert torch.equal(states[0], other)
    added = torch.zeros(2, 6).masked_fill(~mask, -1e4)
    for wrong in (added, 2 * mask.long(), added.masked_fill(~mask, float("-inf"))):
        with pytest.raises(ValueError, match=r"attention_mask: expected .* of bool, or of 0 and 1"):
            model(ids, attention_mask=wrong)
