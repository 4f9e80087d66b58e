"""Optimizers and learning-rate schedules, by name."""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer


def _linear(step: int, num_warmup_steps: int, num_training_steps: int) -> float:
    if step < num_warmup_steps:
        return step / num_warmup_steps
    return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))


def _constant(step: int, num_warmup_steps: int, num_training_steps: int) -> float:
    return min(1.0, step / num_warmup_steps) if num_warmup_steps else 1.0


def _sgd(groups: Iterable[dict], betas: tuple[float, float], eps: float) -> Optimizer:
    return SGD(groups, momentum=betas[0], fused=True)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": partial(AdamW, fused=True),  # one pass over the weights instead of a dozen
    "adam": partial(Adam, fused=True),
    "sgd": _sgd,
}
"""Each takes parameter groups, betas and eps."""
SCHEDULES: dict[str, Callable[[int, int, int], float]] = {"linear": _linear, "constant": _constant}


def decay_groups(module: nn.Module, lr: float, weight_decay: float, name: str) -> list[dict]:
    """Two parameter groups of the trainable weights: matrices, which decay, and vectors, which do not.

    Vectors are biases (those of attention by relative position too, which are matrices in form) and LayerNorms.
    Groups are called "NAME/matrices" and "NAME/vectors"; their learning rates are logged under these names.
    """
    decayed, others = [], []
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            (decayed if parameter.dim() > 1 and not key.endswith("bias") else others).append(parameter)
    groups = [
        {"name": f"{name}/matrices", "params": decayed, "lr": lr, "weight_decay": weight_decay},
        {"name": f"{name}/vectors", "params": others, "lr": lr, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(name: str, groups: Iterable[dict], betas: tuple[float, float], eps: float) -> Optimizer:
    """The named optimizer over parameter groups that carry their own lr and weight_decay."""
    return OPTIMIZERS[name](groups, betas=betas, eps=eps)


def build_schedule(
    optimizer: Optimizer, name: str, num_warmup_steps: int, num_training_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The named schedule, stepped once an optimizer step."""
    curve = SCHEDULES[name]
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: curve(step, num_warmup_steps, num_training_steps)
    )
