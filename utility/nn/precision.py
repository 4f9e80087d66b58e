"""Modules whose numbers stay in single precision, and computing on one thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class SinglePrecision(nn.Module):
    """A module that follows the model around it to another device, but stays in float32 when it is made `.half()`.

    Half precision has neither the range of spectra nor, after the logarithm, the resolution.
    """

    def _apply(self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(lambda tensor: tensor.to(change(torch.empty_like(tensor)).device), recurse)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order: what is computed within is the same to the last bit however many threads a process has."""
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
