"""Mean and deviation of a feature over the training corpus, for normalization that keeps what speakers differ in."""

import torch
from torch import Tensor

from mynah.utility.audio.spectrogram import CMVN_FLOOR, LOG_ROUNDING
from mynah.utility.errors import UserError
from mynah.utility.nn.precision import SinglePrecision


class CorpusStatistics(SinglePrecision):
    """(..., D) features -> the same with mean 0 and deviation 1 over the corpus; unchanged until they are measured.

    Measured once, by `add` for each utterance and `finish`; mean and deviation lie in buffers, so that checkpoints
    hold them.
    """

    def __init__(self, num_bins: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_bins))
        self.register_buffer("deviation", torch.ones(num_bins))
        self.count = 0
        self.sums = torch.zeros(3, num_bins, dtype=torch.float64)

    def add(self, frames: Tensor) -> None:
        """frames: (F, D) of one utterance."""
        frames = frames.double().cpu()
        if self.count == 0:
            self.sums[0] = frames[0]  # everything is counted from the first frame, or squares would cancel
        offset = frames - self.sums[0]
        self.count += len(frames)
        self.sums[1] += offset.sum(0)
        self.sums[2] += offset.square().sum(0)

    def finish(self) -> None:
        """Settle mean and unbiased deviation. Raises UserError for fewer than two frames."""
        if self.count < 2:
            raise UserError("cmvn=corpus: no utterance could be read from which the corpus' statistics are measured")
        first, total, squares = self.sums
        variance = (squares - total.square() / self.count) / (self.count - 1)
        self.mean.copy_(first + total / self.count)
        self.deviation.copy_(variance.clamp(min=0).sqrt())
        self.count, self.sums = 0, torch.zeros_like(self.sums)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., D) float32. A bin that does not change over the corpus becomes zero."""
        return ((x - self.mean) / (self.deviation + CMVN_FLOOR)).masked_fill(self.deviation < LOG_ROUNDING, 0.0)
