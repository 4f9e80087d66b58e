"""frame_timm against timm and torchvision's transforms, a frame at a time."""

import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms import v2

from mynah.upstream.frame_timm.hubconf import frame_timm
from mynah.utility.errors import UserError

MODELS = {
    "resnet10t": (64, lambda features: features.mean((2, 3))),
    "convnext_atto": (64, lambda features: features.mean((2, 3))),
    "vit_tiny_patch16_224": (48, lambda features: features[:, 1:].mean(1)),
    "deit_tiny_distilled_patch16_224": (48, lambda features: features[:, 2:].mean(1)),
    "coat_lite_tiny": (64, lambda features: features[:, 1:].mean(1)),
    "swin_tiny_patch4_window7_224": (64, lambda features: features.mean((1, 2))),
    "vit_tiny_patch16_224.augreg_in21k": (32, lambda features: features[:, 1:].mean(1)),
}
"""Name -> frame size, and the mean over space of what timm's forward_features gives."""
TINY = {"model_name": "resnet10t", "frame_size": 64, "random_weights": True}


def build(**options):
    torch.manual_seed(0)
    return frame_timm(**{**TINY, **options}).eval()


@pytest.fixture
def clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(16, 3, 64, 64), (5, 3, 90, 70), (1, 3, 65, 120), (40, 3, 48, 48)]
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]


@pytest.mark.parametrize("name", MODELS)
def test_features_equal_timm_frame_by_frame(name):
    size, mean_over_space = MODELS[name]
    expert = build(model_name=name, frame_size=size, frames_per_clip=3)
    clip = torch.randint(0, 256, (3, 3, 80, 100), dtype=torch.uint8)
    outputs = expert([clip])
    settings = timm.get_pretrained_cfg(name)
    prepare = v2.Compose(
        [
            v2.Resize(size, antialias=True),
            v2.CenterCrop(size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(settings.mean, settings.std),
        ]
    )
    fixed = {"img_size": size} if settings.fixed_input_size else {}
    net = timm.create_model(name, num_classes=0, **fixed).eval()
    net.load_state_dict(expert.model.backbone.state_dict(), strict=True)
    assert outputs["last_hidden_state"].shape == (1, 3, expert.hidden_size)
    for position, frame in enumerate(clip):
        expected = mean_over_space(net.forward_features(prepare(frame)[None]))
        torch.testing.assert_close(outputs["last_hidden_state"][:, position], expected, atol=1e-4, rtol=1e-4)


def test_statistics_of_backbones_differ():
    """Or the test above would not see whose are taken."""
    assert timm.get_pretrained_cfg("resnet10t").mean != timm.get_pretrained_cfg("vit_tiny_patch16_224").mean


def test_the_attributes_say_what_comes_out(clips):
    expert = build()
    outputs = expert(clips)
    assert (expert.name, expert.modality, expert.num_hidden_states) == ("frame_timm", "video", 1)
    assert (expert.frames_per_clip, expert.num_positions, expert.get_downsample_rates()) == (16, 16, 1)
    assert outputs["last_hidden_state"].shape == (4, 16, expert.hidden_size) == (4, 16, 512)
    assert outputs["last_hidden_state"].dtype == torch.float32
    assert outputs["lengths"].tolist() == [16] * 4
    assert len(outputs["hidden_states"]) == 1


def test_a_clip_has_the_same_features_alone_and_in_any_batch(clips):
    expert = build(frames_per_clip=5)
    for batch in (clips, clips[::-1], [*clips, *clips]):
        together = expert(batch)["last_hidden_state"]
        for row, clip in enumerate(batch):
            torch.testing.assert_close(together[row], expert([clip])["last_hidden_state"][0], atol=1e-5, rtol=0)


def test_a_short_clip_repeats_its_frames(clips):
    features = build(frames_per_clip=6)([clips[2], clips[1][:3]])["last_hidden_state"]
    torch.testing.assert_close(features[0], features[0, :1].expand(6, -1), atol=1e-5, rtol=0)
    torch.testing.assert_close(features[1, ::2], features[1, 1::2], atol=1e-5, rtol=0)
    assert (features[1, 0] - features[1, 2]).abs().max() > 1e-3


def test_all_frames_of_a_batch_pass_at_once(clips, monkeypatch):
    expert, seen = build(frames_per_clip=5), []
    original = expert.model.backbone.forward_features
    monkeypatch.setattr(
        expert.model.backbone, "forward_features", lambda frames: seen.append(len(frames)) or original(frames)
    )
    expert(clips)
    assert seen == [20]


def test_eval_is_deterministic_and_leaves_statistics_alone(clips):
    expert = build(frames_per_clip=2)
    before = {name: value.clone() for name, value in expert.state_dict().items()}
    assert torch.equal(expert(clips)["last_hidden_state"], expert(clips)["last_hidden_state"])
    assert all(torch.equal(value, before[name]) for name, value in expert.state_dict().items())


def test_building_leaves_it_in_training_mode_with_fresh_statistics():
    expert = frame_timm(**TINY)
    assert all(module.training for module in expert.modules())
    assert all(not value.any() for name, value in expert.state_dict().items() if "running_mean" in name)


def test_gradients_reach_every_weight_when_fine_tuning_and_none_when_frozen(clips):
    expert = build(model_name="vit_tiny_patch16_224", frame_size=32, frames_per_clip=2).train()
    state = expert(clips)["last_hidden_state"]
    (state * torch.randn_like(state)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in expert.parameters())
    assert not expert.requires_grad_(False)(clips)["last_hidden_state"].requires_grad


def test_it_is_built_again_from_its_arguments(clips, caplog):
    expert = build(model_name="vit_tiny_patch16_224", frame_size=32, frames_per_clip=3)
    again = frame_timm(**expert.build_arguments()).eval()
    again.load_state_dict(expert.state_dict(), strict=True)
    assert torch.equal(again(clips)["last_hidden_state"], expert(clips)["last_hidden_state"])
    assert not caplog.records


def test_without_a_size_it_takes_the_backbones_own():
    assert build(frame_size=None).frame_size == timm.get_pretrained_cfg("resnet10t").input_size[-1] == 176
    assert frame_timm(random_weights=True).config.model_name == "resnet18"


@pytest.mark.parametrize("kind", ["pth", "safetensors", "pth without the classifier", "wrapped"])
def test_weights_of_timm_are_loaded_and_a_line_says_so(tmp_path, caplog, clips, kind):
    net = timm.create_model("resnet10t").eval()  # with a classifier, as timm's files are
    weights = net.state_dict()
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "wrapped":
        torch.save({"state_dict": weights, "epoch": 3}, path)
    else:
        kept = {name: one for name, one in weights.items() if "classifier" not in kind or not name.startswith("fc.")}
        torch.save(kept, path)
    with caplog.at_level(logging.INFO, "mynah"):
        expert = frame_timm(ckpt=path, model_name="resnet10t", frame_size=64).eval()
    own = expert.model.backbone.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in own)
    (record,) = caplog.records
    assert record.getMessage() == f"frame_timm: loaded {path} (resnet10t, 4.92 M parameters)"


def test_random_weights_are_said_unless_asked_for(caplog):
    frame_timm(**{**TINY, "random_weights": False})
    assert [record.getMessage()[:54] for record in caplog.records] == [
        "frame_timm: no checkpoint given, the weights are rando"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_name": "resnet81"}, "has no model 'resnet81'; did you mean resnet18"),
        ({"model_name": "resnet18.foo"}, "has no weights 'foo' of resnet18; it has resnet18.a1_in1k"),
        ({"frame_sise": 3}, "frame_sise: unknown key; did you mean frame_size?"),
        ({"frames_per_clip": 0}, "frames_per_clip: expected more than 0"),
        ({"frame_size": -1}, "frame_size: expected more than 0"),
        ({"model_name": "crossvit_9_240", "frame_size": None}, "timm's crossvit_9_240 does not turn frames of 240"),
        ({"model_name": "swin_tiny_patch4_window7_224", "frame_size": 2}, "swin_tiny_patch4_window7_224"),
        ({"ckpt": "nowhere.pth"}, "nowhere.pth: no such file; expected the weights of timm's resnet10t"),
        ({"ckpt": "x.pth", "pretrained": True}, "both ckpt=x.pth and pretrained=True"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError) as error:
        frame_timm(**{**TINY, **options})
    assert message in str(error.value)


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", img_size=32).state_dict(), path)
    with pytest.raises(UserError, match=r"weights\.pth: its weights do not fit the model \(\d+ missing: bn1\.bias"):
        frame_timm(ckpt=path, **TINY)


def test_a_failed_download_is_told_as_such(monkeypatch):
    def fail(*arguments, **options):
        raise ConnectionError("no network here")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(
        UserError, match=r"timm could not download resnet10t: no network here; give a file of its weights"
    ):
        frame_timm(**TINY, pretrained=True)


def test_a_file_of_options_is_what_g_gives(tmp_path):
    options = tmp_path / "backbone.yaml"
    options.write_text("model_name: test_resnet\nframes_per_clip: 3\nframe_size: 32\n")
    expert = frame_timm(config=options, frames_per_clip=5, random_weights=True)
    assert (expert.config.model_name, expert.frames_per_clip, expert.frame_size) == ("test_resnet", 5, 32)
    options.write_text("model_nam: test_resnet\n")
    with pytest.raises(UserError, match=r"(?s)backbone\.yaml.*did you mean model_name"):
        frame_timm(config=options)
