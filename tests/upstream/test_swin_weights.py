"""Published layouts of Swin: state dicts of their names and shapes, from other libraries and from lists of keys."""

import re
from fractions import Fraction

import numpy as np
import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin
from torchvision.models.video.swin_transformer import SwinTransformer3d

from mynah.upstream.vidswin_albert.swin_weights import convert_state_dict, load_swin
from mynah.upstream.vidswin_albert.video_swin import SIZES, VideoSwin, VideoSwinConfig
from mynah.utility.errors import UserError

CONFIG = VideoSwinConfig(embed_dim=8, depths=[2, 1, 2], num_heads=[1, 2, 2], window_size=[4, 3, 3])
IMAGE_SIZE = 48  # positions 12, 6, 3: whole windows in every stage


def spread(net: nn.Module) -> nn.Module:
    """Weights so large that attention is far from even, and biases that matter."""
    for name, parameter in net.named_parameters():
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(parameter)
        elif name.endswith(("qkv.weight", "bias")):
            nn.init.normal_(parameter, std=0.1)
    return net.eval()


@pytest.fixture(scope="module")
def video_net() -> SwinTransformer3d:
    torch.manual_seed(0)
    net = SwinTransformer3d([2, 4, 4], 8, [2, 1, 2], [1, 2, 2], [4, 3, 3], num_classes=5)
    return spread(net)


def features_of(net: SwinTransformer3d, clips: Tensor) -> Tensor:
    return net.norm(net.features(net.patch_embed(clips.transpose(1, 2))))


def official(net: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """torchvision's weights under the names of Video Swin's authors, buffers included, without the classifier."""
    named = {}
    for key, value in net.state_dict().items():
        if key.startswith("head."):
            continue
        key = re.sub(
            r"features\.(\d+)\.(norm|reduction)\.", lambda m: f"layers.{int(m[1]) // 2}.downsample.{m[2]}.", key
        )
        key = re.sub(r"features\.(\d+)\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.", key)
        named[prefix + key.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")] = value.clone()
    return named


def save(content: object, path) -> str:
    torch.save(content, path)
    return str(path)


def assert_equals_torchvision(swin: VideoSwin, net: SwinTransformer3d) -> None:
    clips = torch.randn(1, 10, 3, 45, 50)
    with torch.inference_mode():
        torch.testing.assert_close(swin.eval()(clips), features_of(net, clips), atol=1e-4, rtol=0)


def test_an_official_kinetics_checkpoint_is_loaded(video_net, tmp_path):
    weights = official(video_net, "backbone.")
    weights |= {"cls_head.fc_cls.weight": torch.zeros(400, 32), "cls_head.fc_cls.bias": torch.zeros(400)}
    content = {"meta": {"epoch": 30, "mmaction_version": "0.10.0", "config": "model = dict()"}, "state_dict": weights}
    swin = VideoSwin(CONFIG)
    what = load_swin(swin, save(content, tmp_path / "swin_tiny_patch244_window877_kinetics400_1k.pth"))
    assert what == "Video Swin, official"
    assert_equals_torchvision(swin, video_net)


def test_a_checkpoint_of_torchvision_is_loaded(video_net, tmp_path):
    swin = VideoSwin(CONFIG)
    assert (
        load_swin(swin, save(video_net.state_dict(), tmp_path / "swin3d_t-7615ae03.pth"))
        == "Video Swin, torchvision's"
    )
    assert_equals_torchvision(swin, video_net)


def test_the_backbone_of_swinbert_is_loaded(video_net, tmp_path):
    weights = official(video_net, "swin.backbone.")
    weights |= {"fc.weight": torch.zeros(512, 32), "learn_vid_att.weight": torch.zeros(16, 1)}
    weights |= {"trans_encoder.bert.embeddings.word_embeddings.weight": torch.zeros(9, 4)}
    swin = VideoSwin(CONFIG)
    assert load_swin(swin, save(weights, tmp_path / "model.bin")) == "Video Swin, official"
    assert_equals_torchvision(swin, video_net)


def official_shapes(width: int, depths: list[int], heads: list[int], window: tuple[int, ...]) -> dict[str, tuple]:
    """The keys of an official Video Swin and their shapes, written down from its code."""
    rows, positions = np.prod([2 * side - 1 for side in window]), np.prod(window)
    shapes = {"patch_embed.proj.weight": (width, 3, 2, 4, 4), "patch_embed.proj.bias": (width,)}
    shapes |= {"patch_embed.norm.weight": (width,), "patch_embed.norm.bias": (width,)}
    for stage, depth in enumerate(depths):
        wide = width * 2**stage
        for block in range(depth):
            here = f"layers.{stage}.blocks.{block}."
            shapes |= {
                f"{here}norm1.weight": (wide,),
                f"{here}norm1.bias": (wide,),
                f"{here}attn.relative_position_bias_table": (rows, heads[stage]),
                f"{here}attn.relative_position_index": (positions, positions),
                f"{here}attn.qkv.weight": (3 * wide, wide),
                f"{here}attn.qkv.bias": (3 * wide,),
                f"{here}attn.proj.weight": (wide, wide),
                f"{here}attn.proj.bias": (wide,),
                f"{here}norm2.weight": (wide,),
                f"{here}norm2.bias": (wide,),
                f"{here}mlp.fc1.weight": (4 * wide, wide),
                f"{here}mlp.fc1.bias": (4 * wide,),
                f"{here}mlp.fc2.weight": (wide, 4 * wide),
                f"{here}mlp.fc2.bias": (wide,),
            }
        if stage < len(depths) - 1:
            here = f"layers.{stage}.downsample."
            shapes |= {f"{here}reduction.weight": (2 * wide, 4 * wide)}
            shapes |= {f"{here}norm.weight": (4 * wide,), f"{here}norm.bias": (4 * wide,)}
    return {**shapes, "norm.weight": (wide,), "norm.bias": (wide,)}


PUBLISHED = {
    "tiny": (96, [2, 2, 6, 2], [3, 6, 12, 24], (8, 7, 7)),
    "small": (96, [2, 2, 18, 2], [3, 6, 12, 24], (8, 7, 7)),
    "base": (128, [2, 2, 18, 2], [4, 8, 16, 32], (8, 7, 7)),
    "large384": (192, [2, 2, 18, 2], [6, 12, 24, 48], (8, 12, 12)),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_every_key_of_the_official_checkpoints_has_its_place(size):
    with torch.device("meta"):
        weights = {f"backbone.{key}": torch.empty(shape) for key, shape in official_shapes(*PUBLISHED[size]).items()}
        swin = VideoSwin(SIZES[size])
    swin.load_state_dict(convert_state_dict(weights, SIZES[size], size), strict=True, assign=True)


def image_config(**changes) -> dict:
    return {"embed_dim": 8, "depths": [2, 1, 2], "num_heads": [1, 2, 2], **changes}


def timm_net(**changes) -> TimmSwin:
    torch.manual_seed(1)
    options = image_config(img_size=IMAGE_SIZE, patch_size=4, window_size=3, num_classes=7, **changes)
    return spread(TimmSwin(**options))


def torchvision_net() -> TorchvisionSwin:
    torch.manual_seed(2)
    options = image_config(patch_size=[4, 4], window_size=[3, 3], num_classes=7)
    return spread(TorchvisionSwin(**options))


def official_image(net: TimmSwin) -> dict[str, Tensor]:
    """timm's weights as 2-D Swin's authors name them: merging at a stage's end, masks and indices stored."""
    named = {}
    for key, value in net.state_dict().items():
        if not key.endswith(("attn_mask", "relative_position_index")):
            key = re.sub(r"layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
            named[key.replace("head.fc.", "head.")] = value.clone()
    named["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 9, 9)
    named["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(9, 9, dtype=torch.int64)
    return named


IMAGE_LAYOUTS = {
    "official": (timm_net, lambda net: {"model": official_image(net)}, TimmSwin.forward_features),
    "timm's": (timm_net, TimmSwin.state_dict, TimmSwin.forward_features),
    "torchvision's": (torchvision_net, TorchvisionSwin.state_dict, lambda net, x: net.norm(net.features(x))),
}


@pytest.mark.parametrize("layout", IMAGE_LAYOUTS)
def test_an_inflated_net_sees_a_still_clip_as_the_image_net_sees_its_frame(layout, tmp_path):
    build, content, features = IMAGE_LAYOUTS[layout]
    net, swin = build(), VideoSwin(CONFIG).eval()
    what = load_swin(swin, save(content(net), tmp_path / "swin.pth"))
    assert what == f"2-D Swin in the {layout} layout, inflated"
    images = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.inference_mode():
        expected = features(net, images)
        for frames in (2, 8, 16):  # one step, one window, two windows and the shifted ones between them
            actual = swin(images[:, None].expand(-1, frames, -1, -1, -1))
            assert actual.shape[1] == frames // 2
            for step in actual.unbind(1):
                torch.testing.assert_close(step, expected, atol=1e-4, rtol=0)


def bicubic(side: int, target: int) -> np.ndarray:
    """The (target, side) matrix of bicubic resizing with a = -0.75, pixel centers half a pixel in, edges repeated."""

    def weight(distance: float, a: float = -0.75) -> float:
        d = abs(distance)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    matrix = np.zeros((target, side))
    for row in range(target):
        center = (row + 0.5) * side / target - 0.5
        for tap in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
            matrix[row, min(max(tap, 0), side - 1)] += weight(center - tap)
    return matrix


def test_tables_of_another_image_window_are_resized():
    config = VideoSwinConfig(embed_dim=8, depths=[2, 1, 2], num_heads=[1, 2, 2], window_size=[2, 4, 5])
    weights = timm_net().state_dict()
    converted = convert_state_dict(weights, config, "swin.pth")
    table = weights["layers.1.blocks.0.attn.relative_position_bias_table"].double().numpy()  # (25, 2)
    expected = bicubic(5, 7) @ table.T.reshape(2, 5, 5) @ bicubic(5, 9).T
    biases = converted["stages.1.blocks.0.attention.relative_bias"]
    assert biases.shape == (2, 3, 7, 9)
    for step in range(3):
        np.testing.assert_allclose(biases[:, step].numpy(), expected, atol=1e-5)


def without(weights: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    assert key in weights
    return {name: weight for name, weight in weights.items() if name != key}


WRONG = {
    "another size": (
        lambda net: official(SwinTransformer3d([2, 4, 4], 96, [1, 1, 1], [3, 6, 12], [4, 3, 3])),
        "the file has embed_dim 96, depths [1, 1, 1] and windows with 175 relative positions; the model has "
        "embed_dim 8, depths [2, 1, 2] and windows [4, 3, 3]",
    ),
    "a published size": (
        lambda net: {
            key: torch.zeros(()).expand(shape) for key, shape in official_shapes(*PUBLISHED["base"]).items()
        },
        "the file has embed_dim 128, depths [2, 2, 18, 2] (base) and windows [8, 7, 7]",
    ),
    "another window": (
        lambda net: official(SwinTransformer3d([2, 4, 4], 8, [2, 1, 2], [1, 2, 2], [16, 7, 7])),
        "5 of another shape: layers.0.blocks.0.attn.relative_position_bias_table (5239, 1), ",
    ),
    "other patches": (
        lambda net: official(SwinTransformer3d([4, 4, 2], 8, [2, 1, 2], [1, 2, 2], [4, 3, 3])),
        "1 of another shape: patch_embed.proj.weight (8, 3, 4, 4, 2)",
    ),
    "other heads": (
        lambda net: official(SwinTransformer3d([2, 4, 4], 8, [2, 1, 2], [2, 2, 2], [4, 3, 3])),
        "2 of another shape: layers.0.blocks.0.attn.relative_position_bias_table (175, 2)",
    ),
    "too few": (
        lambda net: without(official(net), "layers.1.downsample.norm.bias"),
        "1 missing: layers.1.downsample.norm.bias",
    ),
    "too many": (
        lambda net: {**official(net), "absolute_pos_embed": torch.zeros(3)},
        "1 not expected: absolute_pos_embed",
    ),
    "others of torchvision": (
        lambda net: without(net.state_dict(), "features.2.0.mlp.3.weight"),
        "1 missing: features.2.0.mlp.3.weight",
    ),
    "Swin V2": (
        lambda net: SwinTransformerV2(**image_config(img_size=48, patch_size=4, window_size=3)).state_dict(),
        "it is a Swin V2",
    ),
    "a MobileNet": (
        lambda net: {"features.0.0.weight": torch.zeros(8, 3, 3, 3), "features.0.1.bias": torch.zeros(8)},
        "so it is no Swin",
    ),
    "a ResNet": (
        lambda net: timm.create_model("resnet10t").state_dict(),
        "expected a Video Swin checkpoint (official or torchvision's) or a 2-D Swin checkpoint, but its",
    ),
    "no weights": (lambda net: {"epoch": 3, "loss": 0.5}, "holds something else than weights by name"),
    "Python objects": (lambda net: {"state_dict": official(net), "meta": Fraction(1, 2)}, "holds fractions.Fraction"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_one_error_that_names_the_file_and_says_why(video_net, tmp_path, what):
    content, message = WRONG[what]
    path, swin = tmp_path / "wrong.pth", VideoSwin(CONFIG)
    torch.save(content(video_net), path)
    before = {name: weight.clone() for name, weight in swin.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(message)) as error:
        load_swin(swin, path)
    assert str(error.value).startswith(str(path))
    assert all(torch.equal(weight, before[name]) for name, weight in swin.state_dict().items())
