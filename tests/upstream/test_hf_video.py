"""hf_video against transformers itself, on tiny random models of each family."""

import functools
import json
import logging
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from mynah.downstream.build import TaskOptions
from mynah.downstream.inference import predict
from mynah.downstream.training import train
from mynah.downstream.vatex_caption import report
from mynah.plugins import find_plugins, import_plugin
from mynah.utility.captions.scores import caption_scores
from mynah.utility.errors import UserError

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "initializer_range": 0.2}
SQUARE = {"image_size": 32, "patch_size": 16, "num_frames": 4}
TIMESFORMER = {**TINY, **SQUARE, "intermediate_size": 40}
MODELS = {
    "videomae": ("videomae", {**TINY, **SQUARE, "intermediate_size": 40}),
    "videomae with a last norm": (
        "videomae",
        {**TINY, **SQUARE, "intermediate_size": 40, "image_size": 48, "num_frames": 6, "use_mean_pooling": False},
    ),
    "vjepa2": (
        "vjepa2",
        {
            **TINY, "hidden_size": 48, "crop_size": 32, "patch_size": 16, "frames_per_clip": 4, "mlp_ratio": 2.0,
            "pred_hidden_size": 24, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1,
        },
    ),
    "timesformer": ("timesformer", TIMESFORMER),
    "timesformer space_only": ("timesformer", {**TIMESFORMER, "attention_type": "space_only"}),
    "timesformer joint_space_time": ("timesformer", {**TIMESFORMER, "attention_type": "joint_space_time"}),
}  # fmt: skip
MEAN, DEVIATION = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
"""Of no family, so that they can come from the processor's file alone."""


def make(kind, settings):
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **settings)).eval()
    for name, weight in model.named_parameters():  # as after training: biases, norms and tokens that do something
        if weight.dim() == 1 or "embeddings" in name or name.endswith("cls_token"):
            torch.nn.init.normal_(weight, mean=float("norm.weight" in name), std=0.3)
    return model


def processor_of(kind, side, **settings):
    settings = {"image_mean": MEAN, "image_std": DEVIATION, **settings}
    if kind == "vjepa2":
        return transformers.VJEPA2VideoProcessor(crop_size={"height": side, "width": side}, **settings)
    size = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return transformers.VideoMAEImageProcessor(**size, **settings)


def save(folder, name="videomae", **settings):
    kind, values = MODELS[name]
    model = make(kind, {**values, **settings})
    model.save_pretrained(folder)
    processor_of(kind, values.get("image_size", 32)).save_pretrained(folder)
    return model


def entry():
    return import_plugin(find_plugins("upstream")["hf_video"], "hubconf").hf_video


def load(folder, **options):
    return entry()(str(folder), **options).eval()


def change(folder, **values):
    """Change values of a folder's config.json."""
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **values}))


def clips(upstream, count=3):
    """Clips of exactly the frames that the upstream takes, so that transformers sees the same."""
    generator = torch.Generator().manual_seed(1)
    shape = (upstream.frames_per_clip, 3, upstream.frame_size, upstream.frame_size)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in range(count)]


def pixels(kind, clip, processor):
    """What their own processor makes of a clip: (1, T, 3, S, S)."""
    if kind == "vjepa2":  # whose own resizing would cut off an eighth
        return processor(clip, do_resize=False, return_tensors="pt")["pixel_values_videos"]
    return processor(list(clip.numpy()), input_data_format="channels_first", return_tensors="pt")["pixel_values"]


def their_states(model, clip, processor):
    """H_0 .. H_L of one clip as transformers gives them, places in the order (time, row, column), by a plain loop."""
    kind, frames = model.config.model_type, pixels(model.config.model_type, clip, processor)
    options = {"skip_predictor": True} if kind == "vjepa2" else {}
    output = model(frames, output_hidden_states=True, **options)
    states = [*output.hidden_states[:-1], output.last_hidden_state]
    if kind != "timesformer":
        return states
    num_frames, places = len(clip), (model.config.image_size // model.config.patch_size) ** 2
    ordered = []
    for state in states:
        if model.config.attention_type == "space_only":
            rows = [state[time, 1 + place] for time in range(num_frames) for place in range(places)]
        else:
            rows = [state[0, 1 + place * num_frames + time] for time in range(num_frames) for place in range(places)]
        ordered.append(torch.stack(rows)[None])
    return ordered


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """(the upstream, their model, its processor)."""
    folder = tmp_path_factory.mktemp("model")
    theirs = save(folder, request.param)
    kind, values = MODELS[request.param]
    return load(folder), theirs, processor_of(kind, values.get("image_size", 32))


@torch.no_grad()
def test_a_clip_has_transformers_own_states_alone_and_in_a_batch(pair):
    upstream, theirs, processor = pair
    given = clips(upstream)
    together = upstream(given)["hidden_states"]
    for row, clip in enumerate(given):
        expected = their_states(theirs, clip, processor)
        alone = upstream([clip])["hidden_states"]
        assert len(alone) == len(expected) == upstream.num_hidden_states
        for own, batched, state in zip(alone, together, expected, strict=True):
            bound = 1e-5 * max(1.0, state.abs().max().item())  # states between the norms grow with the depth
            torch.testing.assert_close(own, state, atol=bound, rtol=0)
            torch.testing.assert_close(batched[row], state[0], atol=bound, rtol=0)


@torch.no_grad()
def test_time_is_the_slowest_axis_and_the_rate_is_the_tubelets(pair):
    """What enters the first layer at a position depends on its own frames alone."""
    upstream, _, _ = pair
    [clip] = clips(upstream, 1)
    rate = upstream.get_downsample_rates()
    places = upstream.num_positions // (upstream.frames_per_clip // rate)
    before = upstream([clip])["hidden_states"][0][0]
    for time in range(upstream.frames_per_clip):
        changed = clip.clone()
        changed[time] = 255 - changed[time]
        moved = (upstream([changed])["hidden_states"][0][0] - before).abs().amax(1) > 1e-4
        assert moved.nonzero().flatten().tolist() == [time // rate * places + place for place in range(places)]


def test_it_is_built_again_from_its_arguments(pair):
    upstream, _, _ = pair
    arguments = upstream.build_arguments()
    again = entry()(**json.loads(json.dumps(arguments))).eval()
    again.load_state_dict(upstream.state_dict(), strict=True)
    given = clips(upstream, 2)
    with torch.no_grad():
        assert torch.equal(upstream(given)["last_hidden_state"], again(given)["last_hidden_state"])
    assert again.build_arguments() == arguments


def test_every_weight_is_trained_with_the_last_hidden_state(pair):
    """None is of a part that no feature depends on, as V-JEPA 2's predictor."""
    upstream, _, _ = pair
    upstream.zero_grad()
    upstream(clips(upstream, 2))["last_hidden_state"].square().mean().backward()
    assert [name for name, weight in upstream.named_parameters() if weight.grad is None] == []


# -- what a folder holds -------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 61.0, 62.0]},
        {"rescale_factor": 1 / 127.5},
    ],
)
def test_what_the_processor_does_to_pixels_is_done(tmp_path, settings):
    theirs = save(tmp_path)
    processor = processor_of("videomae", 32, **settings)
    processor.save_pretrained(tmp_path)
    upstream = load(tmp_path)
    [clip] = clips(upstream, 1)
    expected = their_states(theirs, clip, processor)
    for own, state in zip(upstream([clip])["hidden_states"], expected, strict=True):
        torch.testing.assert_close(own, state, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "mean"), [("videomae", 0.485), ("vjepa2", 0.485), ("timesformer", 0.45)])
def test_without_a_processor_the_familys_normalization_is_taken_and_told(tmp_path, caplog, name, mean):
    save(tmp_path, name)
    for file in tmp_path.glob("*preprocessor_config.json"):
        file.unlink()
    with caplog.at_level(logging.WARNING, "mynah"):
        upstream = load(tmp_path)
    assert upstream.encoder.normalization.mean[0] == mean
    assert "has no video_preprocessor_config.json or preprocessor_config.json" in caplog.text


@torch.no_grad()
@pytest.mark.parametrize("name", ["videomae", "vjepa2", "timesformer"])
def test_a_model_with_a_head_gives_its_encoders_states(tmp_path, name):
    kind, settings = MODELS[name]
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **settings)
    whole = transformers.AutoModelForVideoClassification.from_config(config).eval()
    whole.save_pretrained(tmp_path)
    processor = processor_of(kind, 32)
    processor.save_pretrained(tmp_path)
    upstream = load(tmp_path)
    [clip] = clips(upstream, 1)
    for own, state in zip(
        upstream([clip])["hidden_states"], their_states(getattr(whole, kind), clip, processor), strict=True
    ):
        torch.testing.assert_close(own, state, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_pretraining_model_of_videomae_with_the_names_of_its_first_release_is_read(tmp_path):
    """Those hold biases of queries and values under names that transformers has given up."""
    torch.manual_seed(0)
    kind, settings = MODELS["videomae"]
    whole = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**settings)).eval()
    for name, weight in whole.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.3)
    whole.save_pretrained(tmp_path)
    processor_of(kind, 32).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("query.bias", "q_bias").replace("value.bias", "v_bias"): weight
        for name, weight in weights.items()
    }
    assert any(name.endswith("q_bias") for name in old)
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    upstream = load(tmp_path)
    [clip] = clips(upstream, 1)
    expected = their_states(whole.videomae, clip, processor_of(kind, 32))[-1]
    torch.testing.assert_close(upstream([clip])["last_hidden_state"], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_half_precision_weights_and_weights_of_torch_are_read_in_float32(tmp_path):
    theirs = save(tmp_path / "half")
    theirs.half().save_pretrained(tmp_path / "half")
    half = load(tmp_path / "half")
    shutil.copytree(tmp_path / "half", tmp_path / "bin")
    torch.save(load_file(tmp_path / "bin" / "model.safetensors"), tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "bin" / "model.safetensors").unlink()
    expected = their_states(theirs.float(), clips(half, 1)[0], processor_of("videomae", 32))[-1]
    for upstream in (half, load(tmp_path / "bin")):
        assert upstream.dtype == torch.float32
        again = entry()(**upstream.build_arguments()).eval()
        again.load_state_dict(upstream.state_dict())
        for each in (upstream, again):
            found = each(clips(upstream, 1))["last_hidden_state"]
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_frames_that_fill_no_position_are_not_sampled(tmp_path):
    """5 frames in tubelets of 2: two positions in time, of 4 frames, as transformers' convolution has them."""
    theirs = save(tmp_path, num_frames=5)
    upstream = load(tmp_path)
    assert (upstream.frames_per_clip, upstream.num_positions) == (4, 8)
    [clip] = clips(upstream, 1)
    padded = torch.cat([clip, clip[-1:]])
    expected = their_states(theirs, padded, processor_of("videomae", 32))[-1]
    torch.testing.assert_close(upstream([clip])["last_hidden_state"], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_number_of_frames_may_be_chosen(tmp_path):
    theirs = save(tmp_path / "vjepa2", "vjepa2")
    upstream = load(tmp_path / "vjepa2", frames_per_clip=6)
    [clip] = clips(upstream, 1)
    assert len(clip) == 6
    expected = their_states(theirs, clip, processor_of("vjepa2", 32))[-1]
    torch.testing.assert_close(upstream([clip])["last_hidden_state"], expected, atol=1e-5, rtol=1e-5)
    options = tmp_path / "options.yaml"
    options.write_text("frames_per_clip: 2\n")
    assert load(tmp_path / "vjepa2", config=options).num_positions == 4
    assert entry()(**upstream.build_arguments()).frames_per_clip == 6
    save(tmp_path / "timesformer", "timesformer")
    with pytest.raises(
        UserError, match=r"with frames_per_clip=6 some of its weights"
    ):  # its positions in time are learned
        load(tmp_path / "timesformer", frames_per_clip=6)


def test_the_licence_of_the_card_is_passed_on(tmp_path, caplog):
    save(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with caplog.at_level(logging.INFO, "mynah"):
        load(tmp_path)
    assert "hf_video: the model's licence is cc-by-nc-4.0" in caplog.text


# -- mistakes --------------------------------------------------------------------------------------------------------


def test_other_kinds_of_models_are_refused(tmp_path):
    for config in (transformers.BertConfig(), transformers.HubertConfig(), transformers.ViTConfig()):
        config.save_pretrained(tmp_path)
        with pytest.raises(UserError, match=f"its model_type is '{config.model_type}'; hf_video knows videomae"):
            load(tmp_path)


def test_folders_that_hold_no_model_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for source, said in (
        (tmp_path / "empty", "not a model of Hugging Face that can be read"),
        (tmp_path / "file", "a file; hf_video takes the folder"),
        (tmp_path / "nowhere", "no such folder"),
    ):
        with pytest.raises(UserError, match=said):
            load(source)
    with pytest.raises(UserError, match="give a model's folder or its id in the hub"):
        entry()()
    with pytest.raises(UserError, match="did you mean frames_per_clip"):
        load(tmp_path / "empty", frames_per_clips=3)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def without_a_layer(folder):
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def with_nan(folder):
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).flatten()[0] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def with_pickled_code(folder):
    """A file that would write another, were it unpickled as pickle does."""
    (folder / "model.safetensors").unlink()
    call = f"cbuiltins\nexec\n(S'open({str(folder / 'ran')!r}, \"w\")'\ntR."
    (folder / "pytorch_model.bin").write_bytes(call.replace("'open", '"open').replace(")'\n", ')"\n').encode())


BROKEN = {
    "cut weights": (lambda folder: cut(folder / "model.safetensors"), "that can be read"),
    "cut config": (lambda folder: cut(folder / "config.json"), "that can be read"),
    "no weights": (without_weights, "that can be read"),
    "weights of garbage": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 999),
        "that can be read",
    ),
    "a layer is missing": (without_a_layer, r"its weights are not those of its config\.json: 1\d of the videomae"),
    "another width": (lambda folder: change(folder, hidden_size=48), "by its config.json some of its weights"),
    "NaN": (with_nan, "weights that are NaN"),
    "code in a pickle": (with_pickled_code, "that can be read"),
    "cut processor": (lambda folder: cut(folder / "preprocessor_config.json"), "preprocessor_config.json cannot be"),
    "processor is a list": (
        lambda folder: (folder / "preprocessor_config.json").write_text("[]"),
        "instead of an obj",
    ),
    "four means": (lambda folder: change_processor(folder, image_mean=[0.5] * 4), "a number for each of 3 colors"),
    "deviation of 0": (lambda folder: change_processor(folder, image_std=0), "numbers above 0"),
    "factor in words": (lambda folder: change_processor(folder, rescale_factor="x"), "that can be read"),
    "frames not square": (
        lambda folder: change(folder, image_size=[32, 64]),
        r"cut to squares.*image_size \[32, 64\]",
    ),
    "gray frames": (lambda folder: change(folder, num_channels=1), "frames have 3 colors"),
    "too few frames": (lambda folder: change(folder, num_frames=1), "1 frames are too few"),
    "no frames": (lambda folder: change(folder, num_frames=0), "num_frames must be a whole number of 1 or more"),
    "tubelets of nothing": (lambda folder: change(folder, tubelet_size=0), "tubelet_size must be a whole number"),
    "small frames": (lambda folder: change(folder, image_size=8), "too small for patches of 16"),
    "heads that do not divide": (lambda folder: change(folder, num_attention_heads=5), "does not run"),
    "an unknown activation": (lambda folder: change(folder, hidden_act="swash"), "does not run"),
    "no model_type": (lambda folder: change(folder, model_type=None), "that can be read"),
}


def change_processor(folder, **values):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_line_that_names_it(tmp_path, case):
    folder = tmp_path / "model"
    save(folder)
    damage, said = BROKEN[case]
    damage(folder)
    with pytest.raises(UserError, match=said) as caught:
        load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


def test_code_in_a_models_folder_is_not_run(tmp_path):
    save(tmp_path)
    change(tmp_path, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"})
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="not a model of Hugging Face that can be read"):
        load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_values_that_build_no_model_are_refused(tmp_path):
    with pytest.raises(UserError, match="its model_type is 'bert'"):
        entry()(model_config={"model_type": "bert"})
    with pytest.raises(UserError, match="hf_video: 1 frames are too few"):
        entry()(model_config={"model_type": "videomae", **MODELS["videomae"][1]}, frames_per_clip=1)
    with pytest.raises(UserError, match="hf_video: frames are normalized by"):
        entry()(model_config={"model_type": "videomae", **MODELS["videomae"][1]}, mean=[1, 2])


def test_without_transformers_a_line_says_what_to_install(tmp_path, monkeypatch):
    save(tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs the package 'transformers'.*pip install 'mynah\[hub\]'"):
        load(tmp_path)


class _Unreachable(Exception):
    """As the hub's client raises it, whichever HTTP client it has."""


_Unreachable.__name__ = "ConnectError"


def test_where_the_hub_cannot_be_reached_its_cache_is_used_at_once(tmp_path, monkeypatch):
    """No file is asked for over the network, which the client would try six times each."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked = []

    def model_info(self, name, timeout):
        asked.append(name)
        raise _Unreachable("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waits for another try"))
    with pytest.raises(UserError, match="someone/model: not a model of Hugging Face that can be read"):
        load("someone/model")
    assert asked == ["someone/model"]
    folder = tmp_path / "models--someone--model"
    save(folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert load("someone/model").encoder.normalization.mean == tuple(MEAN)


# -- a task ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def vatex(request):
    """The folder of the fixture `clips`, a name that here is of the frames compared."""
    return request.getfixturevalue("clips")


def test_captions_are_trained_on_it_tested_and_predicted_without_the_models_folder(tmp_path, vatex, monkeypatch):
    scores = functools.partial(caption_scores, java=False)
    monkeypatch.setattr(report, "caption_scores", lambda *given, java: scores(*given))
    theirs = save(tmp_path / "model")
    values = [f"datarc.file_path={vatex / 'videos'}", "trainer.max_steps=3", "trainer.val_check_interval=3"]
    values += ["dataloader.batch_size=4", "dataloader.num_workers=0", "generation.max_length=8", "pictures=1"]
    values += ["trainer.enable_progress_bar=false", "model.num_hidden_layers=1", "model.hidden_size=16"]
    values += ["model.num_attention_heads=2", "model.intermediate_size=32", "model.embedding_size=8"]
    values += [
        "model.vocab_size=60",
        "features.layer=-1",
        "scheduler.num_warmup_steps=0",
        "optimizer.upstream_lr=1e-3",
    ]
    options = {"root": tmp_path, "name": "cap", "upstream": "hf_video", "downstream": "vatex_caption"}
    train(TaskOptions(**options, checkpoint=str(tmp_path / "model"), fine_tune=True, overrides=values))
    shutil.rmtree(tmp_path / "model")
    metrics = json.loads((tmp_path / "cap" / "metrics.json").read_text())
    assert metrics["fine_tune"] and metrics["test"]["coverage"] == 1
    assert len(list((tmp_path / "cap" / "test").glob("*.png"))) == 1
    trained = torch.load(tmp_path / "cap" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for key, weight in theirs.state_dict().items():
        if "encoder.layer" in key and key.endswith("dense.weight"):
            assert not torch.equal(weight, trained[f"features.upstream.encoder.model.{key}"]), key
    [result] = predict(TaskOptions(resume=str(tmp_path / "cap")), [vatex / "videos" / "test0.mp4"])
    assert isinstance(result.result["caption"], str)
