"""vidswin_albert: what its hidden states are, its pretraining, and what it begins with."""

import copy
import json
import math

import pytest
import torch

from mynah import ROOT
from mynah.upstream.vidswin_albert import hubconf
from mynah.upstream.vidswin_albert.config import PretrainConfig
from mynah.upstream.vidswin_albert.expert import build_pretraining
from mynah.upstream.vidswin_albert.model import VidSwinAlbert
from mynah.upstream.vidswin_albert.pretraining import _count_epochs_anew, steps_of_epochs
from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.huggingface import save_pretrained
from mynah.utility.albert.tokenizer import AlbertTokenizer
from mynah.utility.configuration.load import load_config, to_plain
from mynah.utility.errors import UserError
from mynah.utility.experiments.checkpoint import METADATA
from mynah.utility.experiments.folder import Experiment
from mynah.utility.video.frames import normalize_frames

DEFAULTS = ROOT / "upstream" / "vidswin_albert" / "pretrain_config.yaml"


def configure(*overrides: str, demo: bool = False) -> PretrainConfig:
    return load_config(PretrainConfig, files=[DEFAULTS], overrides=overrides, demo=demo)


@pytest.fixture
def config(tiny_video_pretraining) -> PretrainConfig:
    return configure(*tiny_video_pretraining)


@pytest.fixture
def module(config, tmp_path):
    torch.manual_seed(0)
    module = build_pretraining(config, Experiment(tmp_path / "run"))
    module.prepare()
    return module


def batch_of(module, training=True):
    loader = module._dataset(module.train_clips, training)
    from mynah.upstream.vidswin_albert.masked_clips import collate

    return collate([loader[(0, index)] for index in range(3)])


# -- the recipe ----------------------------------------------------------------------------------------------------


def test_the_recipe_is_swinberts_with_albert():
    config = configure()
    assert (config.model.num_frames, config.model.frame_size) == (32, 224)
    assert config.model.swin.window_size == [8, 7, 7] and config.model.swin.depths == [2, 2, 18, 2]
    assert (config.model.albert.num_hidden_groups, config.model.albert.img_feature_dim) == (1, 512)
    masking = config.masking
    assert (masking.mask_proportion, masking.max_masked, masking.max_length) == (0.5, 45, 50)
    assert (masking.mask_token_probability, masking.random_token_probability) == (0.8, 0.1)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.lr, optimizer.backbone_factor, optimizer.weight_decay) == (
        "adamw",
        3e-4,
        0.05,
        0.05,
    )
    assert (config.scheduler.warmup_fraction, config.epochs, config.trainer["gradient_clip_val"]) == (0.1, 15, 1.0)
    assert config.loss.sparse_weight == 0.5


def test_the_full_model_has_784_video_tokens_and_the_sizes_of_the_papers():
    with torch.device("meta"):
        model = VidSwinAlbert(configure().model)
    assert model.num_positions == 784
    count = lambda module: sum(weight.numel() for weight in module.parameters())  # noqa: E731
    assert count(model.captioner.albert.encoder) == 7_087_872  # a layer of BERT base: Devlin et al. 2019
    assert 87e6 < count(model.swin) < 89e6  # Swin base: 88 M (Liu et al. 2022, table 1)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model.albert.img_feature_dim=null"], "img_feature_dim"),
        (["dataloader.max_batch_seconds=5"], "max_batch_seconds"),
        (["masking.max_length=600"], "max_position_embeddings"),
        (["scheduler.num_warmup_steps=5"], "warmup_fraction"),
        (["epochs=null"], "max_steps: missing"),
        (["epochs=-1"], "epochs"),
        (["model.swin.depths=[2]"], "num_heads"),
    ],
)
def test_what_cannot_be_meant_is_refused(overrides, said):
    with pytest.raises(UserError, match=said):
        configure(*overrides)


def test_epochs_are_counted_over_pairs_of_clip_and_caption(config):
    del config.trainer["max_steps"]
    config.epochs, config.datarc.captions_per_clip = 3, 2
    config.trainer |= {"devices": 2, "accumulate_grad_batches": 4}
    config.dataloader.batch_size = 5
    assert steps_of_epochs(config, num_pairs=1001) == math.ceil(3 * 1001 / (5 * 2 * 2 * 4))
    config.trainer["devices"] = "auto"
    with pytest.raises(UserError, match=r"give trainer\.max_steps"):
        steps_of_epochs(config, 10)


def test_a_run_without_max_steps_takes_its_epochs(config, tmp_path):
    del config.trainer["max_steps"]
    module = build_pretraining(config, Experiment(tmp_path / "run"))
    module.prepare()
    assert module.config.trainer["max_steps"] == math.ceil(15 * 8 * 2 / (2 * 2))


def test_other_epochs_of_a_resumed_run_are_counted_anew(config, tmp_path):
    del config.trainer["max_steps"]
    module = build_pretraining(config, Experiment(tmp_path / "run"))
    module.prepare()
    metadata = {"pretrain_config": to_plain(module.config)}
    again = copy.deepcopy(module.config)
    _count_epochs_anew(again, metadata["pretrain_config"])
    assert again.trainer["max_steps"] == module.config.trainer["max_steps"]
    again.epochs = 30
    _count_epochs_anew(again, metadata["pretrain_config"])
    assert "max_steps" not in again.trainer
    again.trainer["max_steps"] = 7  # said by the user beside them
    _count_epochs_anew(again, metadata["pretrain_config"])
    assert again.trainer["max_steps"] == 7


# -- the model -----------------------------------------------------------------------------------------------------


def test_hidden_states_are_those_of_the_video_tokens_in_the_joint_model(module):
    """H_L of the upstream against the video part of the encoder run over video tokens by hand."""
    model = module.model.eval()
    upstream = hubconf.vidswin_albert(
        config={"model": to_plain(module.config.model)}, tokenizer=module.tokenizer.to_plain(), random_weights=True
    ).eval()
    upstream.model.load_state_dict(model.state_dict(), strict=True)
    frames = batch_of(module)["frames"]
    states = upstream(list(frames))["hidden_states"]
    features = model.swin(normalize_frames(frames))
    embedded = model.captioner.albert.img_embedding(model.projection(features.reshape(len(frames), -1, 16)))
    torch.testing.assert_close(states[0], embedded, atol=1e-5, rtol=0)
    bias = model.captioner.sparse_attention.bias()[None, None]
    for layer, state in enumerate(model.captioner.albert.encoder(embedded, mask=bias)[0]):
        torch.testing.assert_close(states[layer], state, atol=1e-5, rtol=0)


def test_the_decoder_that_it_offers_gives_the_models_own_scores(module):
    model = module.model.eval()
    config = {"model": to_plain(module.config.model)}
    upstream = hubconf.vidswin_albert(
        config=config, tokenizer=module.tokenizer.to_plain(), random_weights=True
    ).eval()
    upstream.model.load_state_dict(model.state_dict(), strict=True)
    offered = upstream.caption_decoder()
    decoder = AlbertForImageCaptioning(
        AlbertConfig(**offered["config"]), upstream.num_positions, offered["hard_attention"]
    ).eval()
    decoder.load_state_dict(offered["weights"], strict=True)
    batch = batch_of(module)
    expected = model(normalize_frames(batch["frames"]), batch["inputs"], batch["valid"], batch["targets"])
    embedded = upstream(list(batch["frames"]))["hidden_states"][0]
    actual = decoder(batch["inputs"], batch["valid"], embedded, targets=batch["targets"])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_without_a_tokenizer_there_is_no_decoder_to_offer(config):
    upstream = hubconf.vidswin_albert(config={"model": to_plain(config.model)}, random_weights=True)
    assert upstream.caption_decoder() is None


# -- pretraining ---------------------------------------------------------------------------------------------------


def test_masks_are_a_function_of_seed_pass_and_clip(module):
    dataset = module._dataset(module.train_clips, training=True)
    again = module._dataset(module.train_clips, training=True)
    for key in [(0, 1), (3, 5)]:
        for name in ("signal", "inputs", "labels", "targets"):
            assert torch.equal(dataset[key][name], again[key][name])
    assert not all(torch.equal(dataset[(0, 1)]["signal"], dataset[(n, 1)]["signal"]) for n in range(1, 4))
    shown = {tuple(dataset[(n, 1)]["inputs"].flatten().tolist()) for n in range(12)}
    assert len(shown) > 3


def test_the_loss_is_the_cross_entropy_of_the_masked_words_and_the_sparsity(module, monkeypatch):
    batch = batch_of(module)
    module.eval()
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    monkeypatch.setattr(module, "log_dict", lambda values, **_: logged.update(values))
    monkeypatch.setattr(module, "mean_over_processes", lambda count: count.float())
    loss = module.training_step(batch, 0)
    model = module.model
    everywhere = torch.ones_like(batch["targets"])
    scores = model(normalize_frames(batch["frames"]), batch["inputs"], batch["valid"], everywhere)
    log_probabilities = scores.log_softmax(-1).view(*batch["inputs"].shape, -1)
    terms = [-log_probabilities[b, k, c, batch["labels"][b, k, c]] for b, k, c in batch["targets"].nonzero().tolist()]
    opened = torch.sigmoid(model.captioner.sparse_attention.table)
    sparsity = (opened.sum() - opened.diagonal().sum()) / opened.numel()
    torch.testing.assert_close(loss, sum(terms) / len(terms) + 0.5 * sparsity, atol=1e-5, rtol=0)


def test_the_backbone_learns_more_slowly_and_every_weight_is_in_one_group(module):
    module.trainer = None
    groups = module.configure_optimizers()["optimizer"].param_groups
    rates = {id(weight): group["initial_lr"] for group in groups for weight in group["params"]}
    assert {rates[id(weight)] for weight in module.model.swin.parameters()} == {1e-3 * 0.05}
    trainable = [weight for weight in module.model.parameters() if weight.requires_grad]
    assert len(rates) == len(trainable) == sum(len(group["params"]) for group in groups)
    assert rates[id(module.model.projection.weight)] == 1e-3


def test_word_pieces_are_learned_from_the_training_captions_alone(module):
    pieces = module.tokenizer
    assert pieces.unk_id not in pieces.encode("the green screen becomes darker").ids
    assert module.config.model.albert.vocab_size == pieces.vocab_size
    assert module.model.captioner.albert.embeddings.word_embeddings.num_embeddings == pieces.vocab_size


def test_without_dev_annotations_some_clips_are_held_out(config, clips, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "train.json").write_text((clips / "vatex_training_v1.0.json").read_text())
    (alone / "videos").symlink_to(clips / "videos")
    config.datarc.file_path, config.datarc.train = str(alone / "videos"), str(alone / "train.json")
    config.datarc.valid_fraction = 0.3
    module = build_pretraining(config, Experiment(tmp_path / "run"))
    names = [{clip.name for clip in part} for part in (module.train_clips, module.validation_items)]
    assert names[1] and not names[0] & names[1] and len(names[0] | names[1]) == 8


# -- what it begins with -------------------------------------------------------------------------------------------


def test_an_official_albert_folder_gives_shape_weights_and_word_pieces(config, tmp_path):
    tokenizer = AlbertTokenizer.train(["a red surface gets brighter", "the screen becomes darker slowly"], 60)
    shape = AlbertConfig(
        vocab_size=tokenizer.vocab_size,
        embedding_size=6,
        hidden_size=20,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=24,
        img_feature_dim=12,
    )
    published = AlbertForImageCaptioning(shape)
    save_pretrained(published, tmp_path / "albert", tokenizer)
    config.init.albert = str(tmp_path / "albert")
    config.model.albert.sparse_form = "log"
    config.model.albert.hidden_dropout_prob = 0.2
    module = build_pretraining(config, Experiment(tmp_path / "run"))
    taken = module.config.model.albert
    assert (taken.sparse_form, taken.hidden_dropout_prob, taken.img_feature_dim) == (
        "log",
        0.2,
        12,
    )  # not the folder's
    own = {"sparse_form": shape.sparse_form, "hidden_dropout_prob": shape.hidden_dropout_prob}
    assert taken.replace(**own, tie_word_embeddings=shape.tie_word_embeddings) == shape
    ours, theirs = module.model.captioner.state_dict(), published.state_dict()
    for key in ("albert.embeddings.word_embeddings.weight", "albert.encoder.groups.0.0.output.weight"):
        assert torch.equal(ours[key], theirs[key])
    assert module.tokenizer.encode("a red surface").ids == tokenizer.encode("a red surface").ids


def test_a_folder_without_word_pieces_is_refused(config, tmp_path):
    save_pretrained(AlbertForImageCaptioning(config.model.albert), tmp_path / "albert")
    config.init.albert = str(tmp_path / "albert")
    with pytest.raises(UserError, match=r"neither spiece\.model .* nor vocab\.txt"):
        build_pretraining(config, Experiment(tmp_path / "run"))


def test_a_tokenizer_file_is_used_as_it_is(config, tmp_path):
    tokenizer = AlbertTokenizer.train(["completely other words stand in this file"], 40)
    tokenizer.save(tmp_path)
    config.tokenizer.file = str(tmp_path / "spiece.model")
    module = build_pretraining(config, Experiment(tmp_path / "run"))
    assert module.tokenizer.encode("other words").ids == tokenizer.encode("other words").ids
    config.tokenizer.lower_case = False
    cased = build_pretraining(config, Experiment(tmp_path / "cased"))
    assert cased.tokenizer.encode("Other").ids != cased.tokenizer.encode("other").ids
    config.tokenizer.file = str(tmp_path / "words.json")
    with pytest.raises(UserError, match="neither a sentencepiece model"):
        build_pretraining(config, Experiment(tmp_path / "run"))


# -- as a user runs it ---------------------------------------------------------------------------------------------


@pytest.fixture
def pretrain(tmp_path, tiny_video_pretraining):
    def command(name, *overrides, flags=()):
        options = ("-n", name, "-u", "vidswin_albert", "-p", str(tmp_path), *flags)
        return ["run_pretrain.py", *options, "-o", *tiny_video_pretraining, *overrides]

    return command


def test_a_run_in_two_legs_ends_in_the_weights_of_one(tmp_path, script, pretrain):
    status, output = script(*pretrain("whole"))
    assert status == 0, output
    assert "8 clips with 16 captions; 3 held out" in output and "word pieces, learned from" in output
    status, output = script(*pretrain("legs", "trainer.max_steps=9", "scheduler.num_training_steps=20"))
    assert status == 0, output
    status, output = script("run_pretrain.py", "-e", str(tmp_path / "legs"), "-o", "trainer.max_steps=20")
    assert status == 0, output
    whole, legs = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "legs")
    )
    assert whole["global_step"] == legs["global_step"] == 20
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, legs["state_dict"][key]), key
    assert whole[METADATA]["last_val_loss"] == legs[METADATA]["last_val_loss"]
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert metrics["val_loss"] < metrics["val_loss_at_start"]

    expert = hubconf.vidswin_albert(ckpt=tmp_path / "whole")
    weights = whole["state_dict"]["model.projection.weight"]
    assert torch.equal(expert.model.projection.weight, weights) and expert.caption_decoder() is not None

    shorter = hubconf.vidswin_albert(ckpt=tmp_path / "whole", num_frames=2)
    table, of_less = (model.model.captioner.sparse_attention.table for model in (expert, shorter))
    places = len(of_less)  # of one step of time, of two patches each
    assert len(table) == 2 * places
    over_time = table.view(2, places, 2, places).mean((0, 2))  # linear, from two steps to one
    torch.testing.assert_close(of_less, over_time)

    for others in ({"frame_size": 16}, {"frame_size": 16, "num_frames": 2}):  # places are no steps of time
        with pytest.raises(UserError, match="do not fit the model"):
            hubconf.vidswin_albert(ckpt=tmp_path / "whole", **others)

    options = tmp_path / "options.yaml"  # a cap on word pieces that the run has lowered
    options.write_text(
        (tmp_path / "whole" / "pretrain_config.yaml").read_text().replace(" vocab_size: ", " vocab_size: 9")
    )
    status, output = script("run_pretrain.py", "-e", str(tmp_path / "whole"), "-c", str(options))
    assert status == 0, output
    options.write_text(options.read_text().replace("sparse_form: swinbert", "sparse_form: log"))
    status, output = script("run_pretrain.py", "-e", str(tmp_path / "whole"), "-c", str(options))
    assert status == 2 and "model.albert.sparse_form=log: the weights in" in output, output

    status, output = script(*pretrain("again", "trainer.max_steps=1", flags=["--init-from", str(tmp_path / "whole")]))
    assert status == 0 and "with its word pieces" in output, output


def test_held_out_clips_of_which_none_can_be_read_are_no_loss_of_zero(tmp_path, clips, script, pretrain):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"not a video")
    for name in ("train0", "train1", "train2", "train3"):
        (tmp_path / "videos" / f"{name}.mp4").symlink_to(clips / "videos" / f"{name}.mp4")
    dev = tmp_path / "dev.json"
    dev.write_text('[{"video": "broken", "caption": "nothing"}]')
    train = clips / "vatex_training_v1.0.json"
    options = [f"datarc.file_path={tmp_path / 'videos'}", f"datarc.train={train}", f"datarc.dev={dev}"]
    status, output = script(*pretrain("run", *options, "datarc.max_bad_fraction=1"))
    assert status == 2 and "none of the 1 held-out clips could be read" in output, output
