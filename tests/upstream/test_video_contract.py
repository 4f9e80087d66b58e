"""The upstream contract, promise by promise, for every video upstream."""

import copy

import pytest
import torch
from torch import Tensor

from mynah.upstream.frame_timm import hubconf as frame_timm
from mynah.upstream.hf_video import hubconf as hf_video
from mynah.upstream.vidswin_albert import hubconf as vidswin_albert

TINY_SWIN = {
    "num_frames": 4,
    "frame_size": 32,
    "swin.embed_dim": 8,
    "swin.depths": [1, 2],
    "swin.num_heads": [1, 2],
    "swin.window_size": [2, 4, 4],
    "albert.num_hidden_layers": 2,
    "albert.hidden_size": 16,
    "albert.num_attention_heads": 2,
    "albert.intermediate_size": 32,
    "albert.embedding_size": 8,
    "albert.vocab_size": 40,
    "albert.img_feature_dim": 12,
    "albert.initializer_range": 0.2,
}
TINY_TRANSFORMER = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    "patch_size": 16,
}
TINY_VIDEOMAE = {"model_type": "videomae", "image_size": 32, "num_frames": 4, "intermediate_size": 40}
TINY_VJEPA2 = {"model_type": "vjepa2", "crop_size": 32, "frames_per_clip": 4, "pred_num_hidden_layers": 1}
TINY_TIMESFORMER = {"model_type": "timesformer", "image_size": 32, "num_frames": 4, "intermediate_size": 40}
TINY_TIMM = {"model_name": "resnet10t", "frames_per_clip": 4, "frame_size": 32}
BUILDERS = {
    "vidswin_albert": lambda: vidswin_albert.vidswin_albert(random_weights=True, **TINY_SWIN),
    "frame_timm": lambda: frame_timm.frame_timm(random_weights=True, **TINY_TIMM),
    "videomae": lambda: published(TINY_VIDEOMAE),
    "vjepa2": lambda: published(TINY_VJEPA2),
    "timesformer": lambda: published(TINY_TIMESFORMER),
}


def published(config):
    pytest.importorskip("transformers")
    return hf_video.hf_video(model_config={**TINY_TRANSFORMER, **config}, random_weights=True)


@pytest.fixture(params=list(BUILDERS))
def expert(request):
    torch.manual_seed(0)
    return BUILDERS[request.param]().eval()


@pytest.fixture
def clips() -> list[Tensor]:
    """Clips of unlike lengths and sizes, one of a single frame."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(4, 3, 32, 32), (9, 3, 40, 60), (1, 3, 35, 33), (30, 3, 90, 50)]
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]


def test_output(expert, clips):
    outputs = expert(clips)
    assert set(outputs) == {"hidden_states", "last_hidden_state", "lengths"}
    states = outputs["hidden_states"]
    assert isinstance(states, tuple) and len(states) == expert.num_hidden_states
    assert outputs["last_hidden_state"] is states[-1]
    assert all(state.shape == (4, expert.num_positions, expert.hidden_size) for state in states)
    assert outputs["lengths"].tolist() == [expert.num_positions] * 4
    assert outputs["lengths"].dtype == torch.int64
    assert expert.modality == "video"
    assert expert.count_positions(300) == expert.num_positions
    assert expert.num_positions % (expert.frames_per_clip // expert.get_downsample_rates("hidden_states")) == 0


def test_a_clip_has_the_same_features_alone_in_a_batch_and_with_other_neighbors(expert, clips):
    for batch in (clips, clips[::-1], [clips[3], *clips, clips[0]]):
        together = expert(batch)["hidden_states"]
        for row, clip in enumerate(batch):
            for state, alone in zip(together, expert([clip])["hidden_states"], strict=True):
                torch.testing.assert_close(state[row], alone[0], atol=1e-5, rtol=0)


def test_different_clips_have_different_features(expert, clips):
    state = expert(clips)["last_hidden_state"]
    assert all((state[0] - state[row]).abs().max() > 1e-3 for row in range(1, 4))


def test_the_order_of_frames_is_seen(expert, clips):
    forth, back = expert([clips[0], clips[0].flip(0)])["last_hidden_state"]
    assert (forth - back).abs().max() > 1e-3


def test_the_first_hidden_states_alone_are_the_same(expert, clips):
    everything = expert(clips)["hidden_states"]
    for count in range(1, expert.num_hidden_states + 1):
        first = expert(clips, num_hidden_states=count)["hidden_states"]
        assert len(first) == count
        for state, expected in zip(first, everything[:count], strict=True):
            torch.testing.assert_close(state, expected, atol=1e-6, rtol=0)


def test_eval_is_deterministic(expert, clips):
    assert torch.equal(expert(clips)["last_hidden_state"], expert(clips)["last_hidden_state"])


def test_gradients_reach_the_first_weights(expert, clips):
    expert.train()
    state = expert(clips)["last_hidden_state"]
    (state * torch.randn_like(state)).sum().backward()
    first = next(iter(expert.parameters()))
    assert first.grad is not None and first.grad.abs().max() > 0


def test_bfloat16_autocast_works(expert, clips):
    exact = expert(clips)["last_hidden_state"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = expert(clips)["last_hidden_state"].float()
    assert rounded.isfinite().all()
    assert (rounded - exact).abs().mean() < 0.1 * exact.abs().mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_same_features(expert, clips, dtype):
    exact = expert(clips)["last_hidden_state"]
    rounded = copy.deepcopy(expert).to(dtype)(clips)["last_hidden_state"]
    assert rounded.dtype == dtype
    assert (rounded.float() - exact).norm() < 0.05 * exact.norm()


def test_it_is_built_again_from_its_arguments(expert, clips):
    torch.manual_seed(5)
    entry = getattr(
        {"vidswin_albert": vidswin_albert, "frame_timm": frame_timm, "hf_video": hf_video}[expert.name], expert.name
    )
    again = entry(**expert.build_arguments()).eval()
    again.load_state_dict(expert.state_dict(), strict=True)
    assert torch.equal(again(clips)["last_hidden_state"], expert(clips)["last_hidden_state"])


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ([], "non-empty list of uint8 clips"),
        (torch.zeros(2, 4, 3, 32, 32, dtype=torch.uint8), r"pass \[clip\]"),
        ([torch.zeros(4, 3, 32, 32)], "expected a uint8 clip"),
        ([torch.zeros(4, 32, 32, 3, dtype=torch.uint8)], "expected a uint8 clip"),
        ([torch.zeros(16000)], "expected a uint8 clip"),
        ([torch.zeros(0, 3, 32, 32, dtype=torch.uint8)], "no pixels"),
    ],
)
def test_wrong_signals_are_named(expert, signals, message):
    with pytest.raises(ValueError, match=message):
        expert(signals)
