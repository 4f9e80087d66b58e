"""SwinBERT's checkpoints: state dicts of its names and shapes, made of torchvision's Swin and Hugging Face's BERT."""

import re

import pytest
import torch
from torch import nn
from torchvision.models.video.swin_transformer import SwinTransformer3d
from transformers import BertConfig, BertLMHeadModel

from mynah.upstream.vidswin_albert import hubconf
from mynah.upstream.vidswin_albert.swinbert import convert_swinbert
from mynah.utility.albert.generation import GenerationConfig, generate
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA, read_checkpoint, save_atomically
from mynah.utility.video.frames import normalize_frames

FRAMES, SIZE, WORDS = 4, 64, 30
POSITIONS = FRAMES // 2 * (SIZE // 4 // 2) ** 2


class SwinBert(nn.Module):
    """The parts of SwinBERT from other libraries, put together as its code does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.swin = SwinTransformer3d(
            patch_size=[2, 4, 4], embed_dim=8, depths=[1, 2], num_heads=[1, 2], window_size=[8, 7, 7]
        )
        self.fc = nn.Linear(16, 12)
        config = BertConfig(
            vocab_size=WORDS,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=1,
            intermediate_size=32,
            max_position_embeddings=24,
            initializer_range=0.2,
            is_decoder=False,
            attn_implementation="eager",
        )
        self.bert = BertLMHeadModel(config)
        self.bert.bert.pooler = nn.Module()
        self.bert.bert.pooler.dense = nn.Linear(64, 64)
        self.img_embedding = nn.Linear(12, 64)
        # So far apart that many are all but 1.
        self.learn_vid_att = nn.Embedding.from_pretrained(12 * torch.randn(POSITIONS**2, 1))
        self.eval()

    def features(self, clips):
        """(B, T, 3, H, W) -> (B, N, 64)."""
        x = self.swin.patch_embed(clips.transpose(1, 2))
        x = self.swin.norm(self.swin.features(self.swin.pos_drop(x)))
        return self.img_embedding(self.fc(x.flatten(1, 3)))

    def forward(self, clips, words):
        """words: (B, C) -> scores (B, C, vocabulary), by SwinBERT's attention mask of ones and zeros."""
        length = words.shape[1]
        opened = torch.sigmoid(self.learn_vid_att.weight.reshape(POSITIONS, POSITIONS))
        mask = torch.zeros(length + POSITIONS, length + POSITIONS)
        mask[:length, :length] = torch.tril(torch.ones(length, length))
        mask[:length, length:] = 1
        identity = torch.eye(POSITIONS)
        mask[length:, length:] = (1 - identity) * opened + identity
        embedded = torch.cat([self.bert.bert.embeddings(words), self.features(clips)], 1)
        additive = ((1 - mask) * -10000.0)[None, None].expand(len(words), -1, -1, -1)
        states = self.bert.bert.encoder(embedded, attention_mask=additive).last_hidden_state
        return self.bert.cls(states[:, :length])

    def official_state_dict(self):
        """The weights under the names of SwinBERT's model.bin."""
        named = {}
        for key, value in self.swin.state_dict().items():
            if key.startswith("head."):
                continue
            key = re.sub(
                r"features\.(\d+)\.(reduction|norm)\.", lambda m: f"layers.{int(m[1]) // 2}.downsample.{m[2]}.", key
            )
            key = re.sub(r"features\.(\d+)\.(\d+)\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.{m[2]}.", key)
            key = key.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
            named[f"swin.backbone.{key}"] = value
        for key, value in self.bert.state_dict().items():
            named[f"trans_encoder.{key}"] = value
        named.pop("trans_encoder.cls.predictions.decoder.bias", None)
        for key, value in self.img_embedding.state_dict().items():
            named[f"trans_encoder.bert.img_embedding.{key}"] = value
        for key, value in self.fc.state_dict().items():
            named[f"fc.{key}"] = value
        named["learn_vid_att.weight"] = self.learn_vid_att.weight
        return {key: value.clone() for key, value in named.items()}


@pytest.fixture(scope="module")
def swinbert():
    return SwinBert()


@pytest.fixture
def vocabulary(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{index}" for index in range(WORDS - 5))]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(words) + "\n")
    return path


@pytest.fixture
def converted(swinbert, vocabulary, tmp_path):
    torch.save(swinbert.official_state_dict(), tmp_path / "model.bin")
    save_atomically(convert_swinbert(tmp_path / "model.bin", vocabulary, frame_size=SIZE), tmp_path / "swinbert.ckpt")
    return tmp_path / "swinbert.ckpt"


def test_scores_and_hidden_states_equal_those_of_the_parts(swinbert, converted):
    upstream = hubconf.vidswin_albert(ckpt=converted).eval()
    assert (upstream.frames_per_clip, upstream.num_positions) == (FRAMES, POSITIONS)
    generator = torch.Generator().manual_seed(1)
    clips = torch.randint(0, 256, (2, FRAMES, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    words = torch.randint(5, WORDS, (2, 7), generator=generator)
    with torch.no_grad():
        features = swinbert.features(normalize_frames(clips))
        torch.testing.assert_close(upstream(list(clips))["hidden_states"][0], features, atol=1e-4, rtol=0)
        expected = swinbert(normalize_frames(clips), words)
        everywhere = torch.ones(2, 1, 7, dtype=torch.bool)
        actual = upstream.model(normalize_frames(clips), words[:, None], everywhere, everywhere)
    torch.testing.assert_close(actual.view_as(expected), expected, atol=1e-3, rtol=1e-4)


def test_its_first_word_is_the_likeliest_at_mask(swinbert, converted):
    upstream = hubconf.vidswin_albert(ckpt=converted).eval()
    clip = torch.randint(0, 256, (FRAMES, 3, SIZE, SIZE), dtype=torch.uint8)
    states = upstream([clip])["hidden_states"][0]
    vocabulary = upstream.tokenizer
    config = GenerationConfig(max_length=1, min_length=1)
    [[caption]] = generate(upstream.model.captioner, states, None, config, vocabulary)
    start = torch.tensor([[vocabulary.cls_id, vocabulary.mask_id]])
    with torch.no_grad():
        scores = swinbert(normalize_frames(clip[None]), start)[0, 1]
    scores[list(vocabulary.special_ids)] = -torch.inf
    assert caption.ids[0] == scores.argmax().item()


def test_the_card_says_where_it_comes_from(converted):
    metadata = read_checkpoint(converted, "pretrain", "vidswin_albert")[METADATA]
    assert (
        metadata["converted_from"].endswith("model.bin")
        and metadata["config"]["model"]["albert"]["model_type"] == "bert"
    )


def test_an_untied_output_layer_is_kept(swinbert, vocabulary, tmp_path):
    weights = swinbert.official_state_dict()
    decoder = torch.randn_like(weights["trans_encoder.cls.predictions.decoder.weight"])
    weights["trans_encoder.cls.predictions.decoder.weight"] = decoder
    torch.save(weights, tmp_path / "model.bin")
    converted = convert_swinbert(tmp_path / "model.bin", vocabulary, frame_size=SIZE)
    assert any(
        value.shape == decoder.shape and torch.equal(value, decoder) for value in converted["state_dict"].values()
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("fc.bias"), "missing"),
        (lambda weights: weights.update(surplus=torch.ones(2)), "surplus"),
        (lambda weights: weights.pop("trans_encoder.bert.encoder.layer.1.output.dense.weight"), "only 1|missing"),
        (lambda weights: weights.pop("swin.backbone.patch_embed.proj.weight"), "not a checkpoint of SwinBERT"),
        (lambda weights: weights.clear(), "something else than weights"),
    ],
)
def test_anything_else_is_refused(swinbert, vocabulary, tmp_path, change, said):
    weights = swinbert.official_state_dict()
    change(weights)
    torch.save(weights, tmp_path / "model.bin")
    with pytest.raises(UserError, match=said):
        convert_swinbert(tmp_path / "model.bin", vocabulary, frame_size=SIZE)


def test_another_size_vocabulary_or_file_is_refused(swinbert, vocabulary, tmp_path):
    torch.save(swinbert.official_state_dict(), tmp_path / "model.bin")
    with pytest.raises(UserError, match="mask table is of"):
        convert_swinbert(tmp_path / "model.bin", vocabulary, frame_size=224)
    with pytest.raises(UserError, match="mask table is of"):
        convert_swinbert(tmp_path / "model.bin", vocabulary, frame_size=SIZE, num_frames=6)
    short = tmp_path / "short.txt"
    short.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nw\n")
    with pytest.raises(UserError, match="word pieces, but"):
        convert_swinbert(tmp_path / "model.bin", short, frame_size=SIZE)
    (tmp_path / "text.bin").write_text("no weights")
    with pytest.raises(UserError, match="not readable"):
        convert_swinbert(tmp_path / "text.bin", vocabulary)
    with pytest.raises(UserError, match="no such file"):
        convert_swinbert(tmp_path / "absent.bin", vocabulary)
