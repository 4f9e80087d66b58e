"""Window partition of Video Swin, plain and shifted (Liu et al. 2022, sec. 3.2).

The published implementations shift the grid cyclically and, in the windows that wrap around, mask the pairs that do
not lie side by side. Such a window is nothing but smaller windows, one for each of its contiguous parts, so here it
is cut into them: the same attention with fewer products, and neither a roll nor a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True)
class WindowGroup:
    """The windows of one shape and one place inside the full window, which share their position bias."""

    num_windows: int
    """In the whole batch."""
    codes: Tensor
    """(n,) int64 of a window's positions: the difference of two codes, plus `WindowPlan.center`, is the place of
    their relative position in the flattened table of biases."""


@dataclass(frozen=True)
class WindowPlan:
    """Where the positions of a batch of grids go when they are sorted by group and window."""

    padding: tuple[int, int, int]
    """Positions that the grid is padded by, at the end of time, height and width."""
    into_windows: Tensor
    """(rows,) int64: for each sorted row, its row in the flattened padded grids."""
    back: Tensor
    """(B * T * H * W,) int64: for each position of the grids as they were, its sorted row."""
    groups: tuple[WindowGroup, ...]
    """In the order of the sorted rows."""
    center: int
    """The place of a position's bias with itself in the flattened table."""


def plan_windows(
    batch: int, size: Sequence[int], window: Sequence[int], shifted: bool, device: torch.device | None = None
) -> WindowPlan:
    """The plan for `batch` grids of `size` (T, H, W) and windows of `window` (T, H, W).

    Along an axis that one window covers, the window shrinks to the axis and nothing is shifted; along the others the
    grid is padded to whole windows and, if `shifted`, these begin half a window later, the last one wrapping around.
    """
    shrunk = [min(pair) for pair in zip(size, window, strict=True)]
    padded = [-(-length // part) * part for length, part in zip(size, shrunk, strict=True)]
    axes = [
        _stretches(length, part, part // 2 if shifted and length > part else 0)
        for length, part in zip(padded, shrunk, strict=True)
    ]
    rows = torch.arange(batch * padded[0] * padded[1] * padded[2]).view(batch, *padded)
    codes = _codes(window, shrunk)
    sorted_rows, groups = [], []
    for stretches in product(*axes):
        time, height, width = (stretch.positions for stretch in stretches)
        chosen = rows[
            :, time[:, None, None, :, None, None], height[:, None, None, :, None], width[:, None, None, :]
        ]  # (B, windows in T, H and W, positions of one in T, H and W)
        inside = codes[tuple(stretch.inside for stretch in stretches)].flatten()
        groups.append(WindowGroup(chosen.numel() // len(inside), inside.to(device)))
        sorted_rows.append(chosen.flatten())
    into_windows = torch.cat(sorted_rows)
    back = into_windows.argsort().view(batch, *padded)[:, : size[0], : size[1], : size[2]].flatten()
    padding = tuple(whole - length for whole, length in zip(padded, size, strict=True))
    center = int(_codes(window, window)[-1, -1, -1])  # as far as the last position is from the first
    return WindowPlan(padding, into_windows.to(device), back.to(device), tuple(groups), center)


@dataclass(frozen=True)
class _Segment:
    """The windows along one axis that have the same length and place inside the full window."""

    positions: Tensor
    """(windows, length) int64 on the padded axis."""
    inside: slice
    """Their place inside the full window."""


def _stretches(length: int, window: int, shift: int) -> list[_Segment]:
    """The windows of one padded axis; the last one, if shifted, in the parts at the axis' end and at its start."""

    def stretch(first: int, count: int, inside: slice) -> _Segment:
        starts = first + window * torch.arange(count)
        return _Segment(starts[:, None] + torch.arange(inside.stop - inside.start), inside)

    whole = slice(0, window)
    if not shift:
        return [stretch(0, length // window, whole)]
    return [
        stretch(shift, length // window - 1, whole),
        stretch(length - window + shift, 1, slice(0, window - shift)),
        stretch(0, 1, slice(window - shift, window)),
    ]


def _codes(window: Sequence[int], shrunk: Sequence[int]) -> Tensor:
    """The codes (see `WindowGroup`) of the positions in a shrunk window: int64 of its shape.

    A shrunk window has the codes that the first positions of the full one have in reading order. Where height or
    width shrink these are not those of the same offsets, but the published implementations do so.
    """
    strides = ((2 * window[1] - 1) * (2 * window[2] - 1), 2 * window[2] - 1, 1)
    axes = [torch.arange(length) * stride for length, stride in zip(window, strides, strict=True)]
    codes = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    return codes.flatten()[: shrunk[0] * shrunk[1] * shrunk[2]].view(*shrunk)
