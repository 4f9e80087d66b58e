"""Video Swin against torchvision's on the same weights: features, gradients, sizes odd and even."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import video
from torchvision.models.video.swin_transformer import SwinTransformer3d

from mynah.upstream.vidswin_albert.swin_weights import convert_state_dict
from mynah.upstream.vidswin_albert.video_swin import SIZES, VideoSwin, VideoSwinConfig
from mynah.utility.configuration.load import from_plain, to_plain
from mynah.utility.errors import UserError

SMALL = VideoSwinConfig(
    embed_dim=16, depths=[2, 1, 2], num_heads=[2, 4, 4], window_size=[4, 3, 5], mlp_ratio=2.0, drop_path_rate=0.0
)
"""Windows of three unlike sides, small enough for clips of a few frames to need several."""
CLIPS = [
    pytest.param(8, 24, 40, id="one window"),
    pytest.param(16, 48, 80, id="whole windows"),
    pytest.param(1, 24, 40, id="one frame"),
    pytest.param(2, 5, 3, id="tiny"),
    pytest.param(5, 47, 33, id="odd, shorter than the window in time"),
    pytest.param(17, 50, 91, id="odd, longer than the window everywhere"),
    pytest.param(9, 8, 90, id="smaller than the window in height alone"),
    pytest.param(20, 61, 14, id="smaller than the window in width alone"),
]


def torchvision_net(config: VideoSwinConfig) -> SwinTransformer3d:
    """With weights so large that attention is far from even, and biases that matter."""
    torch.manual_seed(0)
    net = SwinTransformer3d(
        patch_size=list(config.patch_size),
        embed_dim=config.embed_dim,
        depths=list(config.depths),
        num_heads=list(config.num_heads),
        window_size=list(config.window_size),
        mlp_ratio=config.mlp_ratio,
        stochastic_depth_prob=config.drop_path_rate,
    )
    return spread(net)


def spread(net: nn.Module) -> nn.Module:
    for name, parameter in net.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(parameter)
        elif name.endswith(("qkv.weight", "bias")):
            nn.init.normal_(parameter, std=0.1)
    return net.eval()


def features_of(net: SwinTransformer3d, clips: Tensor) -> Tensor:
    """torchvision's features before pooling: (B, T', H', W', D)."""
    return net.norm(net.features(net.pos_drop(net.patch_embed(clips.transpose(1, 2)))))


def ours(net: SwinTransformer3d, config: VideoSwinConfig) -> VideoSwin:
    with torch.device("meta"):  # spares the time of drawing weights
        swin = VideoSwin(config)
    swin.load_state_dict(convert_state_dict(net.state_dict(), config, "torchvision"), strict=True, assign=True)
    return swin.eval()


@pytest.fixture(scope="module")
def small() -> tuple[VideoSwin, SwinTransformer3d]:
    net = torchvision_net(SMALL)
    return ours(net, SMALL), net


@pytest.mark.parametrize(("frames", "height", "width"), CLIPS)
def test_features_equal_torchvision(small, frames, height, width):
    swin, net = small
    clips = torch.randn(2, frames, 3, height, width)
    with torch.inference_mode():
        actual, expected = swin(clips), features_of(net, clips)
    assert actual.shape[1:4] == swin.num_positions(frames, height, width)
    assert actual.shape[-1] == swin.feature_size == 64
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("size", "entry"), [("tiny", "swin3d_t"), ("small", "swin3d_s"), ("base", "swin3d_b")])
def test_published_sizes_equal_torchvision(size, entry):
    net = spread(getattr(video, entry)())
    clips = torch.randn(1, 9, 3, 35, 71)
    with torch.inference_mode():
        torch.testing.assert_close(ours(net, SIZES[size])(clips), features_of(net, clips), atol=1e-4, rtol=0)


def test_windows_of_the_large_size_equal_torchvision():
    config = SMALL.replace(window_size=SIZES["large384"].window_size)
    net, clips = torchvision_net(config), torch.randn(1, 20, 3, 104, 60)
    with torch.inference_mode():
        torch.testing.assert_close(ours(net, config)(clips), features_of(net, clips), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("size", "weights"),
    [
        ("tiny", video.Swin3D_T_Weights.KINETICS400_V1),
        ("small", video.Swin3D_S_Weights.KINETICS400_V1),
        ("base", video.Swin3D_B_Weights.KINETICS400_V1),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(size, weights):
    with torch.device("meta"):
        swin = VideoSwin(SIZES[size])
    classifier = (swin.feature_size + 1) * 400
    assert sum(one.numel() for one in swin.parameters()) + classifier == weights.meta["num_params"]


def test_the_large_size_is_that_of_the_paper():
    """Widths 192 to 1536, windows 8 x 12 x 12; 200.0 M parameters with Kinetics-400's classifier (table 1)."""
    with torch.device("meta"):
        swin = VideoSwin(SIZES["large384"])
    assert swin.feature_size == 1536
    assert sum(one.numel() for one in swin.parameters()) + 1537 * 400 == pytest.approx(200.0e6, rel=5e-3)
    assert swin.num_positions(32, 384, 384) == (16, 12, 12)


@pytest.mark.parametrize(("frames", "height", "width"), [(7, 29, 45), (9, 50, 31)])
def test_gradients_equal_torchvision(small, frames, height, width):
    swin, net = (copy.deepcopy(one) for one in small)
    clips = torch.randn(1, frames, 3, height, width)
    inputs = [clips.clone().requires_grad_(), clips.clone().requires_grad_()]
    actual, expected = swin(inputs[0]), features_of(net, inputs[1])
    weights = torch.randn_like(actual)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    gradients = {name: one.grad for name, one in net.named_parameters() if one.grad is not None}
    theirs = convert_state_dict(gradients, SMALL, "gradients")
    for name, parameter in swin.named_parameters():
        assert theirs[name].abs().max() > 0
        scale = theirs[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, theirs[name], atol=1e-4 * scale, rtol=1e-3, msg=name)
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
def test_gradient_checkpointing_changes_neither_features_nor_gradients(drop_path_rate):
    results = []
    for checkpointing in (False, True):
        torch.manual_seed(3)
        config = SMALL.replace(drop_path_rate=drop_path_rate, gradient_checkpointing=checkpointing)
        swin, clips = VideoSwin(config).train(), torch.randn(3, 6, 3, 30, 30)
        torch.manual_seed(4)
        features = swin(clips)
        (features * torch.randn_like(features)).sum().backward()
        results.append([features, *(one.grad for one in swin.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=1e-6, rtol=1e-5)


def test_gradient_checkpointing_keeps_less_for_the_gradient():
    def kept(checkpointing: bool) -> int:
        sizes = []
        swin = VideoSwin(SMALL.replace(gradient_checkpointing=checkpointing))
        with torch.autograd.graph.saved_tensors_hooks(lambda one: sizes.append(one.numel()) or one, lambda one: one):
            swin(torch.randn(1, 8, 3, 40, 40))
        return sum(sizes)

    assert kept(True) < 0.3 * kept(False)


def test_drop_path_rates_are_those_of_torchvision():
    config = SMALL.replace(drop_path_rate=0.3)
    net, swin = torchvision_net(config), VideoSwin(config)
    expected = [block.stochastic_depth.p for block in net.modules() if hasattr(block, "stochastic_depth")]
    assert [block.drop_path.drop_prob for stage in swin.stages for block in stage.blocks] == pytest.approx(expected)


def test_drop_path_leaves_out_branches_of_single_clips_in_training_alone():
    torch.manual_seed(0)
    swin, clip = VideoSwin(SMALL.replace(drop_path_rate=0.6)), torch.randn(1, 4, 3, 24, 24)
    features = swin.train()(clip.expand(8, -1, -1, -1, -1))
    assert any((features[row] - features[0]).abs().max() > 1e-3 for row in range(1, 8))
    swin.eval()
    once = swin(clip.expand(8, -1, -1, -1, -1))
    torch.testing.assert_close(once, once[:1].expand_as(once), atol=1e-5, rtol=0)
    assert torch.equal(once, swin(clip.expand(8, -1, -1, -1, -1)))


def test_a_clip_has_the_same_features_alone_and_in_a_batch(small):
    clips = torch.randn(4, 9, 3, 37, 50)
    together = small[0](clips)
    for row in range(4):
        torch.testing.assert_close(together[row], small[0](clips[row : row + 1])[0], atol=1e-5, rtol=0)


def test_what_was_planned_for_one_shape_is_not_used_for_another(small):
    swin, fresh = small[0], copy.deepcopy(small[0])
    shapes = [(1, 9, 3, 37, 50), (2, 9, 3, 37, 50), (1, 4, 3, 37, 50), (1, 9, 3, 50, 37)]
    for shape in (*shapes, *shapes):
        clips = torch.randn(shape)
        for stage in fresh.stages:
            stage._plans.clear()
        assert torch.equal(swin(clips), fresh(clips))


def test_training_goes_on_after_validation_in_inference_mode():
    swin, clips = VideoSwin(SMALL), torch.randn(1, 5, 3, 30, 30)
    with torch.inference_mode():
        swin(clips)
    swin(clips).sum().backward()
    assert all(parameter.grad is not None for parameter in swin.parameters())


def test_frozen_it_keeps_nothing_for_a_gradient(small):
    swin = copy.deepcopy(small[0]).requires_grad_(False)
    assert not swin(torch.randn(1, 4, 3, 24, 24)).requires_grad


def test_bfloat16_autocast_is_near(small):
    clips = torch.randn(1, 9, 3, 37, 50)
    exact = small[0](clips)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = small[0](clips)
    assert (rounded.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_without_biases_and_patch_norm_it_has_fewer_weights():
    swin = VideoSwin(SMALL.replace(qkv_bias=False, patch_norm=False))
    assert swin(torch.randn(1, 4, 3, 24, 24)).isfinite().all()
    names = [name for name, _ in swin.named_parameters()]
    assert not [name for name in names if "patch_embedding.norm" in name or "query_key_value.bias" in name]


def test_the_configuration_survives_as_plain_values():
    for config in (*SIZES.values(), SMALL):
        assert from_plain(VideoSwinConfig, to_plain(config), source="test") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embed_dim": 0}, "embed_dim: expected more than 0, got 0"),
        (
            {"depths": [2, 0], "num_heads": [1, 1]},
            r"depths: expected a number of 1 or more for each stage, got \[2, 0\]",
        ),
        ({"num_heads": [4, 8]}, r"num_heads: expected one for each of the 4 depths, got \[4, 8\]"),
        ({"num_heads": [4, 8, 16, 30]}, "num_heads: 30 does not divide the width 1024 of stage 3"),
        (
            {"window_size": [7, 7]},
            r"window_size: expected 3 numbers of 1 or more \(time, height, width\), got \[7, 7\]",
        ),
        ({"patch_size": [2, 0, 4]}, r"patch_size: expected 3 numbers of 1 or more"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate: expected less than 1.0, got 1.0"),
        ({"mlp_ratio": 0.0}, "mlp_ratio: expected more than 0"),
    ],
)
def test_impossible_values_are_named(values, message):
    with pytest.raises(UserError, match=message):
        from_plain(VideoSwinConfig, values, source="test")
