"""Model sizes as text."""

from torch import nn


def count_parameters(module: nn.Module) -> int:
    """Weights of a module, each counted once however often it is used."""
    return sum(parameter.numel() for parameter in module.parameters())


def describe_size(encoder: nn.Module, model: nn.Module) -> str:
    """The parameters of the encoder and of the whole model that holds it."""
    sizes = count_parameters(encoder) / 1e6, count_parameters(model) / 1e6
    return "{:.2f} M parameters in the encoder, {:.2f} M in all".format(*sizes)
