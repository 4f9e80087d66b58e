"""Attention among video tokens that is learned to be sparse (SwinBERT: Lin et al. 2022, sec. 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SPARSE_TABLE = "sparse_attention.table"
"""The table's name among the weights of a captioning model."""
MASKED_SCORE = -10000.0
RESIZINGS = ("block", "interpolate")


class LearnedSparseAttention(nn.Module):
    """A learned N x N table that says how open attention is from each video token to each other.

    Two forms of the openness p in the scores:
    - "swinbert": (1 - p) * -10000, BERT's additive mask, as in SwinBERT's code. What is less than about 0.999 open is
      closed in effect, in the forward pass and for the gradient of the table: with the initial values, N(0, 1) before
      the sigmoid, a token attends to itself alone, and only the loss on the openness moves the table.
    - "log": log p, which multiplies the attention weights by p before they are made to sum to 1. The captions then
      say what must stay open.
    """

    def __init__(self, num_positions: int, hard: bool = False, form: str = "swinbert"):
        """hard: take openness of at least 0.5 as 1 and less as 0; the table then learns from `sparsity` alone."""
        super().__init__()
        self.hard, self.form = hard, form
        self.table = nn.Parameter(torch.randn(num_positions, num_positions))

    @property
    def num_positions(self) -> int:
        return len(self.table)

    def probabilities(self) -> Tensor:
        """(N, N) in [0, 1], the openness from row to column; 1 on the diagonal."""
        openness = torch.sigmoid(self.table)
        if self.hard:
            openness = (openness >= 0.5).to(openness.dtype)
        return openness.masked_fill(self._diagonal(), 1.0)

    def bias(self) -> Tensor:
        """(N, N), to be added to attention scores."""
        if self.hard:
            return MASKED_SCORE * (1 - self.probabilities())
        if self.form == "log":
            return F.logsigmoid(self.table.float()).masked_fill(self._diagonal(), 0.0)
        # sigmoid(-x) = 1 - sigmoid(x), without the rounding that the factor would show.
        return MASKED_SCORE * torch.sigmoid(-self.table).masked_fill(self._diagonal(), 0.0)

    def sparsity(self) -> Tensor:
        """The sparsity loss: the mean of the soft attention mask over N * N entries, with a diagonal of zeros."""
        return torch.sigmoid(self.table).masked_fill(self._diagonal(), 0.0).mean()

    @torch.no_grad()
    def resized(
        self, num_positions: int, frames_from: int, frames_to: int, how: str = "block"
    ) -> "LearnedSparseAttention":
        """The same for clips of another number of frames.

        frames_from, frames_to: temporal positions, each of the same number of places; num_positions: those places
        times frames_to. how: "block" repeats the table along the diagonal, the last one cut where it does not fit,
        and draws the rest anew; "interpolate" goes linearly over both time axes, place by place. Raises ValueError
        for numbers that do not belong together.
        """
        self._check(num_positions, frames_from, frames_to, how)
        resized = LearnedSparseAttention(num_positions, self.hard, self.form).to(self.table)
        if how == "interpolate":
            places = self.num_positions // frames_from
            over_time = self.table.view(frames_from, places, frames_from, places).permute(1, 3, 0, 2)
            over_time = F.interpolate(over_time, size=(frames_to, frames_to), mode="bilinear", align_corners=False)
            resized.table.copy_(over_time.permute(2, 0, 3, 1).reshape(num_positions, num_positions))
            return resized
        for start in range(0, num_positions, self.num_positions):
            size = min(self.num_positions, num_positions - start)
            resized.table[start : start + size, start : start + size] = self.table[:size, :size]
        return resized

    def _check(self, num_positions: int, frames_from: int, frames_to: int, how: str) -> None:
        if how not in RESIZINGS:
            raise ValueError(f"how: {how!r} is not one of {', '.join(RESIZINGS)}")
        if min(frames_from, frames_to) < 1 or self.num_positions % frames_from:
            raise ValueError(
                f"{self.num_positions} positions are not a whole number of places in {frames_from} temporal positions"
            )
        expected = self.num_positions // frames_from * frames_to
        if num_positions != expected:
            raise ValueError(
                f"{self.num_positions} positions of {frames_from} temporal positions become {expected} of "
                f"{frames_to}, not {num_positions}: frames of another size need a table of their own"
            )

    def _diagonal(self) -> Tensor:
        return torch.eye(self.num_positions, dtype=torch.bool, device=self.table.device)
