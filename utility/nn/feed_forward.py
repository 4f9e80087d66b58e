"""Memory-saving activation and output layer of a feed-forward block."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


def activated_linear(x: Tensor, activation: Activation, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.linear(activation(x), weight, bias)`, which computes `activation(x)` again for the gradient.

    x: (..., D_in), weight: (D_out, D_in), bias: (D_out,) -> (..., D_out). In a transformer D_in is the widest, so
    that not keeping what is computed of it saves a good part of a training step's memory. Where autocast chooses the
    types, and where no gradient is wanted, this is the plain expression.
    """
    if not torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
        return F.linear(activation(x), weight, bias)
    return _ActivatedLinear.apply(x, activation, weight, bias)


class _ActivatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.activation = activation
        return F.linear(activation(x), weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            activated = ctx.activation(x)
        rows = gradient.reshape(-1, gradient.shape[-1])
        needs_x, _, needs_weight, needs_bias = ctx.needs_input_grad
        for_weight = rows.T @ activated.detach().reshape(-1, x.shape[-1]) if needs_weight else None
        for_x = torch.autograd.grad(activated, x, gradient @ weight)[0] if needs_x else None
        return for_x, None, for_weight, rows.sum(0) if needs_bias else None
