"""The transformer encoder of all models.

BERT, Mockingjay, ALBERT and Audio ALBERT are this post-norm encoder (Devlin et al. 2019; Lan et al. 2020) with
different numbers of distinct layers: `num_hidden_groups = num_hidden_layers` owns one set of weights a layer
(BERT, Mockingjay), `num_hidden_groups = 1` owns one for all of them (ALBERT, Audio ALBERT).
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mynah.utility.configuration.sections import Section, one_of, rules
from mynah.utility.nn.feed_forward import activated_linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class EncoderConfig(Section):
    """Shape of the encoder; the names are those of Hugging Face's BERT and ALBERT."""

    num_hidden_layers: int = Field(6, ge=1, le=10_000)
    """Layers that a position passes through."""
    num_hidden_groups: int = Field(1, ge=1, le=10_000)
    """Distinct sets of weights; layer i uses group i * num_hidden_groups // num_hidden_layers."""
    inner_group_num: int = Field(1, ge=1, le=1000)
    """Layers inside a group, applied in turn each time that the group is."""
    hidden_size: int = Field(768, ge=1)
    """Width of a hidden state."""
    num_attention_heads: int = Field(12, ge=1)
    """Must divide hidden_size."""
    intermediate_size: int = Field(3072, ge=1)
    """Width inside the feed-forward block."""
    hidden_act: Annotated[str, one_of(ACTIVATIONS)] = "gelu"
    """gelu, gelu_new, relu or silu."""
    layer_norm_eps: float = Field(1e-12, gt=0)
    """Added to the variance in every LayerNorm."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights."""
    hidden_dropout_prob: float = Field(0.0, ge=0, lt=1)
    """Dropout on the input and on the output of every block."""
    attention_probs_dropout_prob: float = Field(0.0, ge=0, lt=1)
    """Dropout on attention weights. On a CPU anything but 0 takes attention off its fused path."""

    @rules
    def _sizes_agree(self) -> Iterable[str | None]:
        if self.hidden_size % self.num_attention_heads:
            yield f"num_attention_heads: {self.num_attention_heads} does not divide hidden_size {self.hidden_size}"
        if self.num_hidden_groups > self.num_hidden_layers:
            yield (
                f"num_hidden_groups: {self.num_hidden_groups} groups of weights for "
                f"{self.num_hidden_layers} layers; at most one each"
            )


AttentionFunction = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(query, key, value, each (B, heads, N, d), dropout probability) -> what the queries gather: (B, heads, M, d).

M is N, or less where the first M queries only are of interest: the layer then goes on with those positions alone.
"""


class TransformerEncoder(nn.Module):
    """hidden states (B, N, D) -> the hidden states after every layer."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.num_hidden_layers = config.num_hidden_layers
        self.groups = nn.ModuleList(
            nn.ModuleList(TransformerLayer(config) for _ in range(config.inner_group_num))
            for _ in range(config.num_hidden_groups)
        )

    def forward(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        return_attentions: bool = False,
        mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """x: (B, N, D); valid: (B, N) bool, True where a position may be attended to, None where all may.

        mask: (1 or B, 1 or heads, N, N), from queries to keys; bool, True where a query may attend, or float, added
        to the scores. A query that may attend to nothing gathers zeros. num_layers: pass the first ones only.

        Returns (H_0 = x, H_1, ... H_L), each (B, N, D), and the attention maps (B, heads, N, N), one per layer passed
        (L * inner_group_num), or () unless asked for: they cost N * N memory and the fused attention.
        """
        attend = MaskedAttention(combine_masks(mask, valid), return_attentions)
        states = [x]
        for group in self.passes()[:num_layers]:
            for layer in group:
                x = layer(x, attend)
            states.append(x)
        return tuple(states), tuple(attend.maps)

    def passes(self) -> list[nn.ModuleList]:
        """The group of layers that each of the num_hidden_layers applies, in order."""
        return [
            self.groups[index * len(self.groups) // self.num_hidden_layers] for index in range(self.num_hidden_layers)
        ]


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each followed by dropout, the residual sum and LayerNorm (post-norm)."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, attend: AttentionFunction) -> Tensor:
        """x: (B, N, D) -> (B, M, D), the positions whose queries `attend` answers."""
        attended = self.attention(x, attend)
        x = self.attention_norm(x[:, : attended.shape[1]] + self.dropout(attended))
        transformed = activated_linear(self.intermediate(x), self.activation, self.output.weight, self.output.bias)
        return self.output_norm(x + self.dropout(transformed))


class SelfAttention(nn.Module):
    """The projections of multi-head self-attention around an `AttentionFunction`, which says who attends to whom."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_probs_dropout_prob
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, attend: AttentionFunction) -> Tensor:
        """x: (B, N, D) -> (B, M, D)."""
        batch, positions, width = x.shape
        heads = self.query_key_value(x).view(batch, positions, 3, self.num_heads, width // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = attend(query, key, value, self.dropout if self.training else 0.0)
        return self.output(mixed.transpose(1, 2).flatten(2))


class MaskedAttention:
    """Everyone attends to everyone, as far as a mask lets them; an `AttentionFunction`."""

    def __init__(self, mask: Tensor | None, keep_maps: bool):
        self.mask, self.keep_maps = mask, keep_maps
        self.maps: list[Tensor] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        if not self.keep_maps:
            return fused_attention(query, key, value, self.mask, dropout)
        self.maps.append(attention_map(query, key, self.mask))
        return F.dropout(self.maps[-1], dropout) @ value


def combine_masks(mask: Tensor | None, valid: Tensor | None) -> Tensor | None:
    """mask: (1 or B, 1 or heads, N, N) bool or float, valid: (B, N) bool keys, as in TransformerEncoder -> both in
    one mask of mask's type."""
    if valid is None:
        return mask
    keys = valid[:, None, None, :]
    if mask is None:
        return keys
    return mask & keys if mask.dtype == torch.bool else mask.masked_fill(~keys, float("-inf"))


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    """`scaled_dot_product_attention`, which wants a float mask in the query's type, be it autocast's."""
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)


def attention_map(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """The weights that `fused_attention` mixes values by: (B, heads, queries, keys)."""
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is None:
        return scores.softmax(-1)
    if mask.dtype != torch.bool:
        scores = scores + mask
        mask = scores > float("-inf")
    # Not -inf: where nothing is open, the softmax and its gradient would be NaN.
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~mask, 0.0)


def initialize_weights(module: nn.Module, initializer_range: float) -> None:
    """BERT's initial weights, for `module.apply`: normal weights, zero biases, LayerNorm the identity."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=initializer_range)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


def sinusoid_positions(num_positions: int, width: int, device: torch.device | None = None) -> Tensor:
    """Fixed positions of Vaswani et al. 2017 (sec. 3.5), sine on even and cosine on odd channels: (N, D) float32."""
    channel = torch.arange(width, device=device)
    # In double precision: late positions multiply the rounding of the rate.
    rate = torch.pow(10000.0, -2 * (channel // 2).double() / width)
    angle = torch.arange(num_positions, device=device)[:, None] * rate
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()
