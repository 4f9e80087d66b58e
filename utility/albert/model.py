"""ALBERT's embeddings, encoder and pooler; the output layer of its masked language model.

Lan et al. 2020. With model_type "bert", a group of weights for every layer and embeddings as wide as a hidden state
the same classes are BERT (Devlin et al. 2019).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.huggingface import PretrainedFolder
from mynah.utility.nn.encoder import ACTIVATIONS, TransformerEncoder, initialize_weights


@dataclass(frozen=True)
class AlbertOutput:
    """What an AlbertModel says of a batch of texts."""

    hidden_states: tuple[Tensor, ...]
    """H_0 (the embeddings, hidden_size wide) to H_L, each (B, N, hidden_size)."""
    attentions: tuple[Tensor, ...]
    """Attention maps (B, heads, N, N), one for every layer passed (L * inner_group_num); () unless asked for."""
    pooler_output: Tensor | None
    """(B, hidden_size), tanh of a linear layer over the last state of the first position; None without a pooler."""

    @property
    def last_hidden_state(self) -> Tensor:
        return self.hidden_states[-1]


class AlbertModel(PretrainedFolder, nn.Module):
    """Word pieces -> hidden states."""

    def __init__(self, config: AlbertConfig, with_pooler: bool = True):
        super().__init__()
        self.config = config
        self.embeddings = AlbertEmbeddings(config)
        self.encoder = TransformerEncoder(config)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if with_pooler else None
        initialize_albert(self, config.initializer_range)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool = False,
    ) -> AlbertOutput:
        """input_ids: (B, N) int64; attention_mask: (B, N) bool or 0 and 1, True where a position may be attended to
        (at least one of every text), None where all may. token_type_ids, position_ids: see AlbertEmbeddings.
        """
        embedded = self.embeddings(input_ids, token_type_ids, position_ids)
        valid = None if attention_mask is None else _checked_mask(attention_mask)
        states, attentions = self.encoder(embedded, valid, output_attentions)
        pooled = None if self.pooler is None else torch.tanh(self.pooler(states[-1][:, 0]))
        return AlbertOutput(states, attentions, pooled)


def _checked_mask(attention_mask: Tensor) -> Tensor:
    """A mask of 0 and 1 as bool; a float mask to be added to the scores would mean the opposite of what it says."""
    if attention_mask.dtype == torch.bool:
        return attention_mask
    if not ((attention_mask == 0) | (attention_mask == 1)).all():
        raise ValueError(
            f"attention_mask: expected (B, N) of bool, or of 0 and 1, with 1 where it may be attended to; got "
            f"{attention_mask.dtype} from {attention_mask.min().item()} to {attention_mask.max().item()}"
        )
    return attention_mask.bool()


class AlbertEmbeddings(nn.Module):
    """Word pieces -> H_0: words + positions + segments, LayerNorm, dropout, and the mapping to hidden_size."""

    def __init__(self, config: AlbertConfig):
        super().__init__()
        width = config.embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.mapping = nn.Linear(width, config.hidden_size) if config.model_type == "albert" else None

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """input_ids: (B, N) int64; token_type_ids, position_ids: (B, N) or (1, N) int64, by default zeros and
        0 .. N - 1. Returns (B, N, hidden_size). Raises ValueError for more than max_position_embeddings positions.
        """
        if position_ids is None:
            available = self.position_embeddings.num_embeddings
            if input_ids.shape[1] > available:
                raise ValueError(
                    f"{input_ids.shape[1]} positions, but the model has embeddings for {available} "
                    "(max_position_embeddings); give the tokenizer a max_length"
                )
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        embedded = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        embedded = self.dropout(self.norm(embedded + self.position_embeddings(position_ids)))
        return embedded if self.mapping is None else self.mapping(embedded)


class MaskedLanguageHead(nn.Module):
    """Hidden states -> a score of every word piece, by the word embeddings or, untied, by weights of its own."""

    def __init__(self, config: AlbertConfig, word_embeddings: nn.Embedding):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.norm = nn.LayerNorm(config.embedding_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        tied = config.tie_word_embeddings
        self.decoder = None if tied else nn.Linear(config.embedding_size, config.vocab_size, bias=False)
        # In a tuple, because they are the embeddings' weights: one entry in the state dict and in the optimizer.
        self.word_embeddings = (word_embeddings,)
        initialize_albert(self, config.initializer_range)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden: (..., hidden_size) -> (..., vocab_size)."""
        weight = self.word_embeddings[0].weight if self.decoder is None else self.decoder.weight
        return F.linear(self.norm(self.activation(self.dense(hidden))), weight, self.bias)


def initialize_albert(module: nn.Module, initializer_range: float) -> None:
    """Initial weights of everything inside: as `initialize_weights`, and normal embeddings, padding's zero."""
    for part in module.modules():
        initialize_weights(part, initializer_range)
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=initializer_range)
            if part.padding_idx is not None:
                nn.init.zeros_(part.weight[part.padding_idx].data)
