"""What tests of tasks share: a disk with room; for vatex_caption a small corpus, random features and captioners."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mynah import ROOT
from mynah.downstream import feature_store
from mynah.downstream.interfaces import UpstreamInfo
from mynah.downstream.vatex_caption.expert import DownstreamExpert
from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.wordpiece import WordPieceTokenizer
from mynah.utility.configuration.load import load_config, to_plain

CONFIG = ROOT / "downstream" / "vatex_caption" / "config.yaml"
CAPTIONS = {
    "v_red": ["a red circle moves to the right", "the circle is going right"],
    "v_blue": ["a blue square goes up", "one blue square rises to the top of the picture", "a square travels up"],
    "v_green": ["the green triangle is shrinking slowly"],
    "v_star": ["a yellow star keeps growing", "the star becomes larger and larger"],
}
CHINESE = {
    "v_red": ["一个红色的圆向右移动"],
    "v_blue": ["一个蓝色的方块向上移动", "方块向上"],
    "v_green": ["绿色的三角形正在慢慢缩小"],
    "v_star": ["一颗黄色的星星不断变大"],
}
# Initial weights are large enough that a random decoder says different things of different clips.
TINY = (
    "model.num_hidden_layers=2",
    "model.hidden_size=32",
    "model.num_attention_heads=2",
    "model.intermediate_size=64",
    "model.embedding_size=16",
    "model.vocab_size=60",
    "model.hidden_dropout_prob=0",
    "model.initializer_range=0.3",
    "generation.max_length=12",
)


@pytest.fixture
def any_disk(monkeypatch):
    """How full the disk of this machine is makes no difference to what is kept of features."""
    monkeypatch.setattr(feature_store, "RESERVE", 0)


@pytest.fixture
def captions() -> dict[str, list[str]]:
    """Of each clip of `captioned_clips`, one to three."""
    return {name: list(texts) for name, texts in CAPTIONS.items()}


@pytest.fixture
def captioned_clips(tmp_path) -> Path:
    """VATEX's files for four clips that cannot be decoded; a fifth, which the test split lists, is not there."""
    folder = tmp_path / "vatex"
    (folder / "videos").mkdir(parents=True)
    for name in CAPTIONS:
        (folder / "videos" / f"{name}.mp4").write_bytes(b"")
    rows = [{"videoID": name, "enCap": CAPTIONS[name], "chCap": CHINESE[name]} for name in CAPTIONS]
    for file in ("training_v1.0", "validation_v1.0"):
        (folder / f"vatex_{file}.json").write_text(json.dumps(rows))
    gone = {"videoID": "v_gone", "enCap": ["it is gone"], "chCap": ["没了"]}
    (folder / "vatex_public_test_english_v1.1.json").write_text(json.dumps([gone, *rows]))
    return folder


@pytest.fixture
def plain_upstream() -> UpstreamInfo:
    """An upstream without a decoder: four steps of time, two places each."""
    return UpstreamInfo(
        name="fake",
        modality="video",
        feature_size=12,
        samples_per_position=2,
        frames_per_clip=8,
        frame_size=16,
        num_positions=8,
    )


@pytest.fixture
def tokenizer() -> WordPieceTokenizer:
    """One whose word pieces are the words of the captions."""
    words = {word for texts in CAPTIONS.values() for text in texts for word in text.split()}
    return WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)])


@pytest.fixture
def captioner(tokenizer) -> AlbertForImageCaptioning:
    """What an upstream was pretrained with: a decoder of embedded video, with learned sparse attention."""
    config = AlbertConfig(
        num_hidden_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        embedding_size=16,
        vocab_size=tokenizer.vocab_size,
        img_feature_dim=None,
        initializer_range=0.3,
    )
    torch.manual_seed(3)
    return AlbertForImageCaptioning(config, num_video_positions=8, hard_attention=True).eval()


@pytest.fixture
def pretrained_upstream(plain_upstream, captioner, tokenizer) -> UpstreamInfo:
    """An upstream that brings `captioner`, and whose hidden states are as wide."""
    given = {
        "config": to_plain(captioner.config),
        "hard_attention": True,
        "tokenizer": tokenizer.to_plain(),
        "weights": captioner.state_dict(),
    }
    return dataclasses.replace(plain_upstream, name="swinbert", feature_size=32, caption_decoder=given)


@pytest.fixture
def build(captioned_clips, plain_upstream) -> Callable[..., DownstreamExpert]:
    """build(*overrides, upstream=, state=, folder=) -> an expert on `captioned_clips`."""

    def build_expert(*overrides: str, upstream: UpstreamInfo = plain_upstream, **arguments) -> DownstreamExpert:
        overrides = (f"datarc.file_path={captioned_clips}", *TINY, *overrides)
        config = load_config(DownstreamExpert.Config, files=[CONFIG], overrides=overrides)
        torch.manual_seed(0)
        return DownstreamExpert(upstream, config, **arguments)

    return build_expert


@pytest.fixture
def clip_features() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """clip_features(width=12, count=4) -> random features (count, 8, width) and their lengths."""

    def draw(width: int = 12, count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.randn(count, 8, width, generator=torch.Generator().manual_seed(1))
        return features, torch.full((count,), 8)

    return draw
