"""Video Swin Transformer (Liu et al. 2022, "Video Swin Transformer"), the backbone without a classifier.

Equal to torchvision's `swin3d_*` on the same weights, which `swin_weights.py` brings from the published layouts.
Names of the weights: `patch_embedding.{projection, norm}`, `stages.I.blocks.J.{attention_norm, attention, mlp_norm,
mlp}`, `stages.I.merging.{norm, reduction}` between the stages, and `norm`.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from timm.layers import DropPath, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mynah.utility.configuration.sections import Section, rules
from mynah.utility.nn.feed_forward import activated_linear

from .swin_windows import WindowPlan, plan_windows

AXES = 3
"""Time, height and width."""
KEPT_PLANS = 8
"""Shapes of batches whose windows are remembered."""


class VideoSwinConfig(Section):
    """Shape of the backbone; the defaults are those of the base size, SwinBERT's."""

    embed_dim: int = Field(128, gt=0)
    """Width of the first stage; each further one doubles it."""
    depths: list[int] = Field(default_factory=lambda: [2, 2, 18, 2])
    """Blocks of each stage; every second one has shifted windows."""
    num_heads: list[int] = Field(default_factory=lambda: [4, 8, 16, 32])
    """Attention heads of each stage; must divide its width."""
    patch_size: list[int] = Field(default_factory=lambda: [2, 4, 4])
    """Frames, rows and columns that become one position of the first stage."""
    window_size: list[int] = Field(default_factory=lambda: [8, 7, 7])
    """Positions in time, height and width that attend to each other."""
    mlp_ratio: float = Field(4.0, gt=0)
    """Width inside the feed-forward blocks, as a multiple of the stage's."""
    drop_path_rate: float = Field(0.1, ge=0, lt=1)
    """Chance that the last block's branches are left out in training; it rises linearly from 0 at the first."""
    qkv_bias: bool = True
    """Whether queries, keys and values have a bias."""
    patch_norm: bool = True
    """Whether patches are normalized once they are embedded."""
    initializer_range: float = Field(0.02, gt=0)
    """Standard deviation of the initial weights; narrow models from scratch learn sooner with more, such as 0.1."""
    gradient_checkpointing: bool = False
    """Keep only the blocks' inputs for the gradient and compute the rest again: less memory, more time."""

    def num_positions(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """T', H', W' for clips of that size."""
        sizes = zip((frames, height, width), self.patch_size, strict=True)
        time, *sides = (-(-length // patch) for length, patch in sizes)
        for _ in self.depths[1:]:
            sides = [-(-side // 2) for side in sides]
        return time, *sides

    @rules
    def _stages_and_axes_agree(self) -> Iterable[str | None]:
        for name in ("patch_size", "window_size"):
            values = getattr(self, name)
            if len(values) != AXES or min(values) < 1:
                yield f"{name}: expected 3 numbers of 1 or more (time, height, width), got {values}"
        for name in ("depths", "num_heads"):
            values = getattr(self, name)
            if not values or min(values) < 1:
                yield f"{name}: expected a number of 1 or more for each stage, got {values}"
        if len(self.depths) != len(self.num_heads):
            yield f"num_heads: expected one for each of the {len(self.depths)} depths, got {self.num_heads}"
        for stage, heads in enumerate(self.num_heads):
            width = self.embed_dim * 2**stage
            if heads > 0 and width % heads:
                yield f"num_heads: {heads} does not divide the width {width} of stage {stage}"


SIZES: dict[str, VideoSwinConfig] = {
    "tiny": VideoSwinConfig(embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
    "small": VideoSwinConfig(embed_dim=96, num_heads=[3, 6, 12, 24]),
    "base": VideoSwinConfig(),
    "large384": VideoSwinConfig(embed_dim=192, num_heads=[6, 12, 24, 48], window_size=[8, 12, 12]),
}
"""The published sizes; copies are for changing."""


class VideoSwin(nn.Module):
    """Clips -> features of every position, a patch of 2 x 32 x 32 with four stages and patches of 2 x 4 x 4."""

    def __init__(self, config: VideoSwinConfig):
        super().__init__()
        self.config = config
        self.feature_size = config.embed_dim * 2 ** (len(config.depths) - 1)
        self.patch_embedding = PatchEmbedding(config)
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.depths)))
        self.norm = nn.LayerNorm(self.feature_size)
        self.stages.apply(partial(_initialize, initializer_range=config.initializer_range))

    def forward(self, clips: Tensor) -> Tensor:
        """clips: (B, T, 3, H, W) float, normalized -> (B, T', H', W', feature_size) after the last LayerNorm.

        Any number of frames and any size will do; `num_positions` gives T', H', W'.
        """
        x = self.patch_embedding(clips)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x)

    def num_positions(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """T', H', W' for clips of that size."""
        return self.config.num_positions(frames, height, width)


class PatchEmbedding(nn.Module):
    """Patches of pixels -> positions. The published convolution, as the matrix product that it is.

    projection.weight: (embed_dim, 3 * patch), the convolution's (embed_dim, 3, time, height, width) flattened.
    """

    def __init__(self, config: VideoSwinConfig):
        super().__init__()
        time, height, width = self.patch_size = tuple(config.patch_size)
        self.projection = nn.Linear(3 * time * height * width, config.embed_dim)
        self.norm = nn.LayerNorm(config.embed_dim) if config.patch_norm else nn.Identity()

    def forward(self, clips: Tensor) -> Tensor:
        """clips: (B, T, 3, H, W) -> (B, T', H', W', embed_dim); what is missing in a patch is zero."""
        time, height, width = self.patch_size
        frames, _, rows, columns = clips.shape[1:]
        clips = F.pad(clips, (0, -columns % width, 0, -rows % height, 0, 0, 0, -frames % time))
        patches = (
            clips.unflatten(4, (-1, width))
            .unflatten(3, (-1, height))
            .unflatten(1, (-1, time))  # (B, T', time, 3, H', height, W', width)
            .permute(0, 1, 4, 6, 3, 2, 5, 7)
            .flatten(4)
        )
        return self.norm(self.projection(patches))


class Stage(nn.Module):
    """Blocks with plain and shifted windows by turns, and the merging of patches unless it is the last stage."""

    def __init__(self, config: VideoSwinConfig, index: int):
        super().__init__()
        width, before, last = config.embed_dim * 2**index, sum(config.depths[:index]), sum(config.depths) - 1
        rates = [config.drop_path_rate * (before + block) / max(1, last) for block in range(config.depths[index])]
        self.window_size, self.gradient_checkpointing = tuple(config.window_size), config.gradient_checkpointing
        self.blocks = nn.ModuleList(Block(config, width, config.num_heads[index], rate) for rate in rates)
        self.merging = PatchMerging(width) if index < len(config.depths) - 1 else None
        self._plans: dict[Any, tuple[WindowPlan, WindowPlan]] = {}

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, H, W, D) -> (B, T, H / 2, W / 2, 2 * D), halves rounded up, or unchanged in the last stage."""
        plans = self._plans_for(x)
        for index, block in enumerate(self.blocks):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, plans[index % 2], use_reentrant=False)
            else:
                x = block(x, plans[index % 2])
        return x if self.merging is None else self.merging(x)

    def _plans_for(self, x: Tensor) -> tuple[WindowPlan, WindowPlan]:
        """The plain and the shifted plan; those of the last few shapes of batches are kept."""
        wanted = (x.shape[:-1], x.device)
        if wanted not in self._plans:
            if len(self._plans) == KEPT_PLANS:
                del self._plans[next(iter(self._plans))]
            batch, *size = x.shape[:-1]
            with torch.inference_mode(False):  # or what validation leaves here could not be used in training
                plain, shifted = (
                    plan_windows(batch, size, self.window_size, each, x.device) for each in (False, True)
                )
            self._plans[wanted] = plain, shifted
        return self._plans[wanted]


class Block(nn.Module):
    """Window attention and feed-forward, each on normalized input and added to it (pre-norm), with drop path."""

    def __init__(self, config: VideoSwinConfig, width: int, num_heads: int, drop_path_rate: float):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, num_heads, config.window_size, config.qkv_bias)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, int(width * config.mlp_ratio))
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """x: (B, T, H, W, D) -> the same shape."""
        x = x + self.drop_path(self.attention(self.attention_norm(x), plan))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


class FeedForward(nn.Module):
    def __init__(self, width: int, inner_width: int):
        super().__init__()
        self.intermediate = nn.Linear(width, inner_width)
        self.output = nn.Linear(inner_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return activated_linear(self.intermediate(x), F.gelu, self.output.weight, self.output.bias)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for every relative position.

    relative_bias: (heads, 2 * T - 1, 2 * H - 1, 2 * W - 1) for windows of (T, H, W).
    """

    def __init__(self, width: int, num_heads: int, window_size: Sequence[int], qkv_bias: bool):
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.output = nn.Linear(width, width)
        self.relative_bias = nn.Parameter(torch.zeros(num_heads, *(2 * length - 1 for length in window_size)))

    def forward(self, x: Tensor, plan: WindowPlan) -> Tensor:
        """x: (B, T, H, W, D) -> the same shape. Positions that only pad the grid are attended to, as published."""
        shape, table = x.shape, self.relative_bias.flatten(1)
        if any(plan.padding):
            time, height, width = plan.padding
            x = F.pad(x, (0, 0, 0, width, 0, height, 0, time))
        rows = self.query_key_value(x.flatten(0, -2).index_select(0, plan.into_windows))
        parts = rows.split([group.num_windows * len(group.codes) for group in plan.groups])
        mixed = []
        for group, part in zip(plan.groups, parts, strict=True):
            positions = len(group.codes)
            heads = part.view(group.num_windows, positions, 3, self.num_heads, -1)
            places = group.codes[:, None] - group.codes + plan.center
            bias = table.index_select(1, places.flatten()).view(1, self.num_heads, positions, positions)
            query, key, value = heads.permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
            mixed.append(attended.transpose(1, 2).reshape(len(part), -1))
        return self.output(torch.cat(mixed)).index_select(0, plan.back).view(shape)


class PatchMerging(nn.Module):
    """Four neighboring positions of a frame -> one of twice the width."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, H, W, D) -> (B, T, H / 2, W / 2, 2 * D); an odd last row or column is completed by zeros."""
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, T, H / 2, 2, W / 2, 2, D)
        return self.reduction(self.norm(x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)))


def _initialize(module: nn.Module, initializer_range: float) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=initializer_range)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        trunc_normal_(module.relative_bias, std=initializer_range)
