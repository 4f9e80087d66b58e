"""Hugging Face's models with random weights: the independent reference of these tests."""

import torch
import transformers
from torch import Tensor

ALBERT = {
    "vocab_size": 40,
    "embedding_size": 8,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
    "attn_implementation": "eager",
}
BERT = {name: value for name, value in ALBERT.items() if name != "embedding_size"}
VARIANTS = {
    "albert": {},
    "albert, a group a layer": {"num_hidden_groups": 3},
    "albert, groups and inner layers": {"num_hidden_groups": 2, "inner_group_num": 3, "type_vocab_size": 3},
    "albert, relu": {"inner_group_num": 2, "hidden_act": "relu", "layer_norm_eps": 1e-3, "pad_token_id": 5},
    "albert, untied": {"tie_word_embeddings": False},
    "bert": {},
    "bert, gelu_new, four heads": {"hidden_act": "gelu_new", "num_attention_heads": 4, "pad_token_id": 1},
    "bert, untied": {"tie_word_embeddings": False},
}


def build_peer(variant: str, what: str = "Model", **fields) -> transformers.PreTrainedModel:
    """Hugging Face's model of a variant in evaluation mode; for the what of "ForPreTraining", AlbertForPreTraining.

    Its weights are far from their initial values, so that none can be confused.
    """
    kind, sizes = ("Bert", BERT) if variant.startswith("bert") else ("Albert", ALBERT)
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **VARIANTS[variant], **fields})
    torch.manual_seed(0)
    peer = getattr(transformers, kind + what)(config).eval()
    for parameter in peer.parameters():
        parameter.data.add_(0.15 * torch.randn(parameter.shape))
    return peer


def texts() -> tuple[Tensor, Tensor, Tensor]:
    """Ids (3, 9) of three lengths, where they are valid, and their segments."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 40, (3, 9), generator=generator)
    valid = torch.arange(9) < torch.tensor([9, 6, 1])[:, None]
    return ids, valid, torch.randint(0, 2, (3, 9), generator=generator)


def close(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and (ours - theirs).abs().max() < 1e-5
