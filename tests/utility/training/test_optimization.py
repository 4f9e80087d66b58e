"""Optimizers and schedules, against Hugging Face's schedules and against updates by hand."""

import pytest
import torch
import transformers
from torch import nn

from mynah.upstream.vidswin_albert.video_swin import VideoSwin, VideoSwinConfig
from mynah.utility.nn.encoder import EncoderConfig, TransformerEncoder
from mynah.utility.training.optimization import build_optimizer, build_schedule, decay_groups


def rates(name: str, warmup: int, total: int, steps: int) -> list[float]:
    parameter = nn.Parameter(torch.zeros(2, 2))
    optimizer = build_optimizer("sgd", [{"params": [parameter], "lr": 0.5}], (0.0, 0.0), 1e-8)
    schedule = build_schedule(optimizer, name, warmup, total)
    return walk(optimizer, schedule, steps)


def walk(optimizer, schedule, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (4, 10), (9, 10)])
@pytest.mark.parametrize("name", ["linear", "constant"])
def test_schedules_equal_those_of_transformers(name, warmup, total):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    if name == "linear":
        theirs = transformers.get_linear_schedule_with_warmup(optimizer, warmup, total)
    else:
        theirs = transformers.get_constant_schedule_with_warmup(optimizer, warmup)
    assert rates(name, warmup, total, 14) == pytest.approx(walk(optimizer, theirs, 14))


def test_the_linear_schedule_peaks_at_the_warm_ups_end_and_ends_at_zero():
    seen = rates("linear", 5, 20, 22)
    assert seen[0] == 0
    assert max(seen) == seen[5] == 0.5
    assert seen[20:] == [0, 0]


def test_biases_and_layer_norms_are_not_decayed():
    encoder = TransformerEncoder(EncoderConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=2))
    decayed, kept = decay_groups(encoder, lr=0.1, weight_decay=0.3, name="all")
    assert (decayed["lr"], decayed["weight_decay"]) == (0.1, 0.3)
    assert (kept["lr"], kept["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in encoder.named_parameters()}
    assert all("norm" not in names[id(one)] and names[id(one)].endswith("weight") for one in decayed["params"])
    assert all("norm" in names[id(one)] or names[id(one)].endswith("bias") for one in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_biases_of_attention_by_relative_position_are_not_decayed_either():
    swin = VideoSwin(VideoSwinConfig(embed_dim=8, depths=[1], num_heads=[2], window_size=[2, 4, 4]))
    decayed, _ = decay_groups(swin, lr=0.1, weight_decay=0.3, name="all")
    names = {id(parameter): name for name, parameter in swin.named_parameters()}
    biases = [name for name in names.values() if "relative" in name]
    assert biases
    assert not any("bias" in names[id(one)] for one in decayed["params"])


def test_frozen_weights_and_empty_groups_are_left_out():
    linear = nn.Linear(3, 3, bias=False)
    assert len(decay_groups(linear, 0.1, 0.1, "all")) == 1
    assert decay_groups(linear.requires_grad_(False), 0.1, 0.1, "all") == []


def test_decay_shrinks_weights_without_a_gradient_by_lr_times_decay():
    linear = nn.Linear(3, 3)
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    optimizer = build_optimizer(
        "adamw", decay_groups(linear, lr=0.1, weight_decay=0.3, name="all"), (0.9, 0.999), 1e-8
    )
    for parameter in linear.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(linear.weight, weight * (1 - 0.1 * 0.3))
    torch.testing.assert_close(linear.bias, bias)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_updates_equal_the_textbook(name):
    """Two steps in double precision: Adam's moments with bias correction, or the momentum of SGD."""
    parameter = nn.Parameter(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    group = {"params": [parameter], "lr": 0.1, "weight_decay": 0.0}
    optimizer = build_optimizer(name, [group], (0.8, 0.95), 1e-3)
    value, first, second = parameter.detach().clone(), 0.0, 0.0
    for step, gradient in enumerate((torch.tensor([[0.5, 4.0]]), torch.tensor([[-1.0, 0.1]])), start=1):
        parameter.grad = gradient.double()
        optimizer.step()
        if name == "sgd":
            first = 0.8 * first + gradient
            value = value - 0.1 * first
        else:
            first, second = 0.8 * first + 0.2 * gradient, 0.95 * second + 0.05 * gradient**2
            value = value - 0.1 * (first / (1 - 0.8**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-3)
        torch.testing.assert_close(parameter.detach(), value.double(), atol=1e-6, rtol=0)
