"""utility/nn/feed_forward.py against plain autograd."""

import pytest
import torch
import torch.nn.functional as F

from mynah.utility.nn.encoder import ACTIVATIONS
from mynah.utility.nn.feed_forward import activated_linear


def inputs(*, dtype=torch.float32):
    torch.manual_seed(0)
    sizes = ((2, 3, 8), (4, 8), (4,))
    return [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_gradients_are_those_of_the_plain_expression(name):
    activation = ACTIVATIONS[name]
    ours, plain = inputs(), inputs()
    result = activated_linear(ours[0], activation, ours[1], ours[2])
    expected = F.linear(activation(plain[0]), plain[1], plain[2])
    torch.testing.assert_close(result, expected)
    weights = torch.randn_like(result)
    (result * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_gradients_agree_with_finite_differences():
    x, weight, bias = inputs(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *args: activated_linear(args[0], F.gelu, *args[1:]), (x, weight, bias))


def test_frozen_weights_and_inputs_get_no_gradient():
    x, weight, bias = inputs()
    activated_linear(x.detach(), F.gelu, weight, bias).sum().backward()
    assert x.grad is None and weight.grad is not None
    x, weight, bias = inputs()
    activated_linear(x, F.gelu, weight.detach(), bias.detach()).sum().backward()
    assert x.grad is not None and weight.grad is None and bias.grad is None


def test_the_activations_are_not_kept():
    x, weight, bias = inputs()
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        activated_linear(x, F.gelu, weight, bias)
    assert {tensor.data_ptr() for tensor in kept} == {x.data_ptr(), weight.data_ptr()}


def test_under_autocast_the_gradients_keep_their_types():
    x, weight, bias = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = activated_linear(x, F.gelu, weight, bias)
    assert result.dtype is torch.bfloat16
    result.float().sum().backward()
    assert all(tensor.grad.dtype is torch.float32 for tensor in (x, weight, bias))
