"""A captioning model of tiny size, and a vocabulary for it."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.masked_captions import CaptionVocabulary

SMALL = {
    "num_hidden_layers": 3,
    "num_hidden_groups": 2,
    "inner_group_num": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 19,
    "embedding_size": 8,
    "max_position_embeddings": 24,
    "img_feature_dim": 6,
}
BERT = {
    "model_type": "bert",
    "num_hidden_groups": 3,
    "inner_group_num": 1,
    "embedding_size": 16,
    "hidden_act": "gelu",
}

BuildCaptioner = Callable[..., AlbertForImageCaptioning]


@pytest.fixture
def bert() -> dict:
    """Fields that make the tiny model a BERT."""
    return dict(BERT)


@pytest.fixture
def vocabulary() -> CaptionVocabulary:
    """ALBERT's special word pieces, and 14 that are words."""
    special = {"pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
    return SimpleNamespace(vocab_size=19, special_ids=frozenset(special.values()), **special)


@pytest.fixture
def build_captioner() -> BuildCaptioner:
    """build_captioner(num_video_positions=None, hard_attention=False, **config fields) -> a model whose every weight
    is far from its initial value, and whose sparse attention is neither open nor closed."""

    def build(
        num_video_positions: int | None = None, hard_attention: bool = False, **fields
    ) -> AlbertForImageCaptioning:
        torch.manual_seed(0)
        model = AlbertForImageCaptioning(AlbertConfig(**{**SMALL, **fields}), num_video_positions, hard_attention)
        for parameter in model.parameters():
            parameter.data.add_((0.15 if parameter.dim() > 1 else 0.1) * torch.randn(parameter.shape))
        model.albert.embeddings.word_embeddings.weight.data.normal_()
        model.albert.embeddings.position_embeddings.weight.data.normal_()
        if model.sparse_attention is not None:
            # (1 - sigmoid(9)) * -10000 is about -1; half of the table is closed where it is hardened.
            mean = 0.0 if hard_attention else 9.0
            model.sparse_attention.table.data.normal_(mean, 1.0)
        return model.eval()

    return build
