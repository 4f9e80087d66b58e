"""utility/training/module.py: what must not reach the weights."""

from types import SimpleNamespace

import pytest
import torch

from mynah.utility.errors import UserError
from mynah.utility.training.module import TrainingModule
from mynah.utility.training.optimization import build_optimizer


@pytest.fixture
def module():
    made = TrainingModule()
    made.weight = torch.nn.Parameter(torch.ones(3))
    made._trainer = SimpleNamespace(global_step=3, precision_plugin=SimpleNamespace())
    made.log = lambda *args, **kwargs: None
    return made


def test_a_gradient_that_is_not_finite_stops_the_run(module):
    module.weight.grad = torch.tensor([1.0, float("nan"), 0.0])
    with pytest.raises(UserError, match="gradient's norm became nan at step 4"):
        module.configure_gradient_clipping(None, 1.0, None)


def test_a_gradient_scaler_is_left_to_skip_such_steps_itself(module):
    module._trainer.precision_plugin.scaler = torch.amp.GradScaler("cpu")
    module.weight.grad = torch.full((3,), float("inf"))
    module.configure_gradient_clipping(None, None, None)


def test_gradients_are_clipped_by_the_norm_that_they_have_without_the_scale(module):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    module._trainer.precision_plugin.scaler = scaler
    optimizer = build_optimizer("sgd", [{"params": [module.weight], "lr": 1.0}], (0.0, 0.0), 1e-8)
    scaler.scale((module.weight * torch.tensor([0.3, 0.4, 0.0])).sum()).backward()
    module.configure_gradient_clipping(optimizer, 1.0, None)
    scaler.step(optimizer)
    torch.testing.assert_close(module.weight.detach(), torch.tensor([0.7, 0.6, 1.0]))
    scaler.update()
    optimizer.zero_grad()
    scaler.scale((module.weight * torch.tensor([3.0, 4.0, 0.0])).sum()).backward()
    module.configure_gradient_clipping(optimizer, 1.0, None)
    scaler.step(optimizer)
    torch.testing.assert_close(module.weight.detach(), torch.tensor([0.1, -0.2, 1.0]), atol=1e-5, rtol=0)


def test_gradients_are_clipped_by_their_norm(module):
    module.weight.grad = torch.tensor([3.0, 4.0, 0.0])
    module.configure_gradient_clipping(None, 1.0, None)
    torch.testing.assert_close(module.weight.grad, torch.tensor([0.6, 0.8, 0.0]), atol=1e-4, rtol=0)
    module.weight.grad = torch.tensor([3.0, 4.0, 0.0])
    module.configure_gradient_clipping(None, None, None)
    assert module.weight.grad.tolist() == [3.0, 4.0, 0.0]


@pytest.mark.parametrize("algorithm", [None, "value"])
def test_the_first_loss_that_is_not_finite_is_named_with_its_utterances(module, algorithm):
    module.weight.grad = torch.full((3,), float("nan"))
    module.track_loss(torch.tensor(1.0), ["a.wav"])
    module.track_loss(torch.tensor(float("inf")), ["b.wav"])
    with pytest.raises(UserError, match=r"became inf at step 4.*a\.wav, b\.wav"):
        module.configure_gradient_clipping(None, 1.0, algorithm)


def test_values_are_clipped_without_the_scale(module):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    module._trainer.precision_plugin.scaler = scaler
    optimizer = build_optimizer("sgd", [{"params": [module.weight], "lr": 1.0}], (0.0, 0.0), 1e-8)
    optimizer._step_supports_amp_scaling = True  # as fused optimizers have it, which Lightning would not unscale
    scaler.scale((module.weight * torch.tensor([0.3, 4.0, 0.0])).sum()).backward()
    module.configure_gradient_clipping(optimizer, 0.5, "value")
    torch.testing.assert_close(module.weight.grad, torch.tensor([0.3, 0.5, 0.0]))
