"""The scripts on clips as a user meets them: pretrain, caption, evaluate, predict, refuse."""

import functools
import json
import shutil
import sys

import pytest
import torch

from mynah.commands import downstream as run_downstream
from mynah.commands import pretrain as run_pretrain
from mynah.downstream.vatex_caption import report
from mynah.utility.captions.scores import caption_scores
from mynah.utility.errors import UserError

TINY = ["trainer.max_steps=12", "trainer.val_check_interval=6", "trainer.enable_progress_bar=false"]
TINY += ["trainer.log_every_n_steps=5", "dataloader.batch_size=4", "dataloader.num_workers=0", "optimizer.lr=1e-2"]
TINY += ["scheduler.num_warmup_steps=2", "generation.max_length=12", "pictures=1"]
# The shape of a new decoder, for upstreams that bring none.
DECODER = ["model.num_hidden_layers=1", "model.hidden_size=16", "model.num_attention_heads=2"]
DECODER += ["model.intermediate_size=32", "model.embedding_size=8", "model.vocab_size=60"]


def call(patch, script, *arguments):
    patch.setattr(sys, "argv", ["x", *map(str, arguments)])
    return script.run(script.parse_arguments())


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, clips):
    """The folder of a tiny pretrained vidswin_albert."""
    root = tmp_path_factory.mktemp("pretrained")
    model = {
        "num_frames": 4,
        "frame_size": 32,
        "swin": {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": [2, 4, 4]},
        "albert": {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
        | {"embedding_size": 8, "img_feature_dim": 12, "vocab_size": 60},
    }
    options = [f"model={json.dumps(model)}", f"datarc.file_path={clips / 'videos'}", "dataloader.batch_size=4"]
    options += ["dataloader.num_workers=0", "trainer.max_steps=3", "trainer.accumulate_grad_batches=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYNAH_CACHE", str(tmp_path_factory.mktemp("cache")))
        options += ["trainer.enable_progress_bar=false"]
        assert call(patch, run_pretrain, "-n", "tiny", "-u", "vidswin_albert", "-p", root, "-o", *options) == 0
    return root / "tiny"


@pytest.fixture(autouse=True)
def without_java(monkeypatch):
    """Where the scores are not what is tested, METEOR's seconds are spared."""
    scores = functools.partial(caption_scores, java=False)
    monkeypatch.setattr(report, "caption_scores", lambda *given, java: scores(*given))


@pytest.fixture
def downstream(monkeypatch, tmp_path):
    """downstream(*arguments) runs the script in this process, below tmp_path, and returns its exit status."""
    return lambda *arguments: call(monkeypatch, run_downstream, "-p", tmp_path, *arguments)


@pytest.fixture
def captions(clips):
    return ["-d", "vatex_caption", "-o", f"datarc.file_path={clips / 'videos'}", *TINY]


@pytest.fixture(scope="module")
def captioner(tmp_path_factory, clips, pretrained):
    """The folder of a fine-tuned captioner; not to be changed."""
    root = tmp_path_factory.mktemp("captioner")
    options = ["-d", "vatex_caption", "-f", "-o", f"datarc.file_path={clips / 'videos'}", *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYNAH_CACHE", str(tmp_path_factory.mktemp("cache")))
        start = ["-n", "cap", "-u", "vidswin_albert", "-k", pretrained, "-p", root]
        assert call(patch, run_downstream, *start, *options) == 0
    return root / "cap"


@pytest.fixture
def evaluated(tmp_path, captioner):
    """A copy of the captioner that may be changed."""
    return shutil.copytree(captioner, tmp_path / "cap")


def load(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


# -- train and evaluate --------------------------------------------------------------------------------------------


def test_a_captioner_is_fine_tuned_and_tested(captioner, pretrained):
    metrics = read_json(captioner / "metrics.json")
    assert metrics["fine_tune"] is True and metrics["best_step"] in (6, 12)
    report = read_json(captioner / "test" / "predictions.json")
    assert metrics["test"]["coverage"] == report["coverage"] == 1.0
    assert {clip["name"] for clip in report["predictions"]} == {"test0", "test1", "test2"}
    assert {"bleu_4", "meteor", "rouge_l", "cider", "loss"} <= set(metrics["test"])
    assert len(list((captioner / "test").glob("*.png"))) == 1
    before, after = load(pretrained)["state_dict"], load(captioner)["state_dict"]
    for part in ("swin", "projection"):
        assert not any(
            torch.equal(value, after[f"features.upstream.{key}"])
            for key, value in before.items()
            if key.startswith(f"model.{part}.") and key.endswith("weight") and "relative" not in key
        )


def test_evaluation_gives_the_tests_numbers_again(downstream, evaluated, capsys):
    tested = read_json(evaluated / "metrics.json")["test"]
    assert downstream("-m", "evaluate", "-e", evaluated, "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again.pop("split") == "test"
    same = {"loss", "coverage", "distinct", "cider"}  # which take no Java; the words of the two tokenizers agree here
    assert {key: again[key] for key in same} == {key: pytest.approx(tested[key], abs=1e-5) for key in same}


def test_without_the_clips_the_captions_are_alike_and_lie_in_a_folder_of_their_own(downstream, evaluated):
    untouched = (evaluated / "test" / "predictions.json").read_bytes()
    assert downstream("-m", "evaluate", "-e", evaluated, "-o", "features.zeroed=true") == 0
    report = read_json(evaluated / "test_zeroed" / "predictions.json")
    assert len({clip["prediction"] for clip in report["predictions"]}) == 1
    assert (evaluated / "test" / "predictions.json").read_bytes() == untouched


def test_a_frozen_upstream_stays_as_it_was(downstream, tmp_path, pretrained, captions):
    assert downstream("-n", "frozen", "-u", "vidswin_albert", "-k", pretrained, *captions) == 0
    before, after = load(pretrained)["state_dict"], load(tmp_path / "frozen")["state_dict"]
    video = [key for key in before if key.startswith(("model.swin.", "model.projection."))]
    assert video
    for key in video:
        assert torch.equal(before[key], after[f"features.upstream.{key}"]), key


@pytest.mark.parametrize(
    ("upstream", "flags", "overrides"),
    [
        ("vidswin_albert", ["-s", "last_hidden_state"], []),
        ("vidswin_albert", ["-l", "2"], []),
        ("vidswin_albert", ["-f"], ["features.layer=null"]),
        ("frame_timm", ["-g", "{backbone}"], DECODER),
    ],
)
def test_any_layer_of_any_video_upstream_can_be_captioned(
    downstream, tmp_path, pretrained, captions, upstream, flags, overrides, capsys, clips
):
    backbone = tmp_path / "backbone.yaml"
    backbone.write_text("{model_name: test_resnet, frames_per_clip: 4, frame_size: 32}")
    flags = [flag.format(backbone=backbone) for flag in flags]
    if upstream == "vidswin_albert":
        flags += ["-k", str(pretrained)]
    assert downstream("-n", "run", "-u", upstream, *flags, *captions, *overrides) == 0
    assert read_json(tmp_path / "run" / "metrics.json")["test"]["coverage"] == 1
    capsys.readouterr()
    clip = clips / "videos" / "test0.mp4"
    assert downstream("-m", "inference", "-e", tmp_path / "run", "--input", clip) == 0
    assert capsys.readouterr().out.startswith(f"{clip}: ")


def test_a_resumed_captioner_ends_where_an_uninterrupted_one_ends(downstream, tmp_path, pretrained, captions):
    start = ["-u", "vidswin_albert", "-k", pretrained, "-f", *captions]
    assert downstream("-n", "whole", *start) == 0
    assert downstream("-n", "half", *start, "trainer.max_steps=6", "scheduler.num_training_steps=12") == 0
    assert downstream("-e", tmp_path / "half", "-o", "trainer.max_steps=12") == 0
    whole, resumed = load(tmp_path / "whole"), load(tmp_path / "half")
    assert whole["global_step"] == resumed["global_step"] == 12
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key


def test_two_processes_fine_tune_together(script, tmp_path, pretrained, captions):
    options = ["-n", "two", "-u", "vidswin_albert", "-k", str(pretrained), "-f", "-p", str(tmp_path), *captions]
    options += ["trainer.devices=2", "trainer.accelerator=cpu", "datarc.language=zh"]  # whose scores take no Java
    status, output = script("run_downstream.py", *options)
    assert status == 0, output
    assert len(read_json(tmp_path / "two" / "test" / "predictions.json")["predictions"]) == 3


# -- predict ---------------------------------------------------------------------------------------------------------


def test_files_and_folders_are_captioned_from_the_experiment_alone(
    downstream, tmp_path, evaluated, clips, capsys, monkeypatch
):
    """Neither corpus nor upstream checkpoint is needed; a file's caption is the one that its test gave it."""
    monkeypatch.setattr("mynah.utility.captions.corpus.read_captioned_clips", None)
    folder = tmp_path / "clips"
    shutil.copytree(clips / "videos", folder)
    (folder / "broken.mp4").write_bytes(b"not a video")
    file = clips / "videos" / "test1.mp4"
    pictures = tmp_path / "pictures"
    status = downstream(
        *("-m", "inference", "-e", evaluated / "checkpoints" / "best.ckpt", "--json"),
        *("--pictures", pictures, "--input", file, folder),
    )
    assert status == 1  # for the broken one
    results = json.loads(capsys.readouterr().out)
    good = len(list((clips / "videos").iterdir()))
    assert len(results) == 1 + good and results[0]["file"] == str(file)
    assert len(list(pictures.glob("*.png"))) == 1 + good and (pictures / "test1_2.png").is_file()
    report = read_json(evaluated / "test" / "predictions.json")
    tested = {f"{clip['name']}.mp4": clip["prediction"] for clip in report["predictions"]}
    for result in results:
        assert 0 <= result["confidence"] <= 1
        name = result["file"].rsplit("/", 1)[1]
        assert result["caption"] == tested.get(name, result["caption"])


def test_beams_of_inference_come_from_the_command_line(downstream, evaluated, clips, capsys):
    options = ["generation.num_beams=3", "generation.num_return=3"]
    file = clips / "videos" / "test0.mp4"
    assert downstream("-m", "inference", "-e", evaluated, "--json", "--input", file, "-o", *options) == 0
    [result] = json.loads(capsys.readouterr().out)
    assert len(result["alternatives"]) == 2
    assert len({result["caption"], *(each["caption"] for each in result["alternatives"])}) == 3


# -- refuse ----------------------------------------------------------------------------------------------------------


def test_clips_that_are_gone_or_broken_are_counted_beside_the_scores(
    downstream, tmp_path, pretrained, clips, captions, capsys
):
    folder = shutil.copytree(clips, tmp_path / "corpus")
    (folder / "videos" / "test0.mp4").unlink()
    (folder / "videos" / "train3.mp4").write_bytes(b"")
    options = [*captions, f"datarc.file_path={folder / 'videos'}", "datarc.max_bad_fraction=0.5"]
    assert downstream("-n", "run", "-u", "vidswin_albert", "-k", pretrained, *options) == 0
    assert read_json(tmp_path / "run" / "metrics.json")["test"]["coverage"] == pytest.approx(2 / 3)
    assert "2 of 3 listed clips (66.7 %)" in (tmp_path / "run" / "test" / "predictions.md").read_text()
    skipped = (tmp_path / "run" / "skipped_files.txt").read_text()
    assert "test0" in skipped and "train3.mp4" in skipped


@pytest.mark.parametrize(
    ("upstream", "options", "said"),
    [
        ("fbank", [], "'fbank' reads speech, but task 'vatex_caption' needs video"),
        ("vidswin_albert", ["datarc.file_path=/nowhere"], "/nowhere"),
        ("vidswin_albert", ["datarc.language=fr"], "datarc.language"),
        ("vidswin_albert", ["generation.num_return=4"], "num_return"),
        ("vidswin_albert", ["dataloader.max_batch_seconds=10"], "max_batch_seconds"),
        ("vidswin_albert", ["model.hiden_size=3"], "hiden_size"),
        ("vidswin_albert", ["datarc.train=missing.json"], "missing.json"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    downstream, tmp_path, pretrained, captions, upstream, options, said
):
    checkpoint = ["-k", pretrained] if upstream == "vidswin_albert" else []
    with pytest.raises(UserError) as caught:
        downstream("-n", "run", "-u", upstream, *checkpoint, *captions, *options)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_speech_task_refuses_a_video_upstream(downstream, pretrained, corpus):
    options = ["-d", "voxceleb1_speaker", "-o", f"datarc.file_path={corpus}"]
    with pytest.raises(UserError, match="reads video, but task 'voxceleb1_speaker' needs speech"):
        downstream("-n", "run", "-u", "vidswin_albert", "-k", pretrained, *options)


def test_another_upstreams_checkpoint_is_refused(downstream, tmp_path, captioner, pretrained, captions):
    with pytest.raises(UserError, match="downstream"):
        downstream("-n", "run", "-u", "vidswin_albert", "-k", captioner, *captions)
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((pretrained / "checkpoints" / "last.ckpt").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"broken\.ckpt"):
        downstream("-n", "run", "-u", "vidswin_albert", "-k", broken, *captions)


def test_a_folder_without_videos_is_told(downstream, tmp_path, evaluated, caplog):
    (tmp_path / "empty").mkdir()
    assert downstream("-m", "inference", "-e", evaluated, "--input", tmp_path / "empty") == 1
    assert f"no videos below {tmp_path / 'empty'}" in caplog.text


def test_another_model_than_the_one_that_was_trained_is_refused(downstream, evaluated, clips):
    use = ["-m", "inference", "-e", evaluated, "--input", clips / "videos" / "test0.mp4", "-o"]
    for change in ("features.layer=2", "features.normalize=true", "model.hard_attention=true"):
        with pytest.raises(UserError, match=rf"{change.partition('=')[0]}=.* were trained otherwise"):
            downstream(*use, change)
    assert downstream(*use, "features.cache_gib=1") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "clip.mp4"], "--input needs -m inference"),
        (["-m", "evaluate", "--pictures", "x"], "--pictures needs -m inference"),
        (["-m", "inference", "--split", "dev"], "--split needs -m evaluate"),
    ],
)
def test_options_of_another_mode_are_refused(downstream, captioner, arguments, said):
    with pytest.raises(UserError, match=said):
        downstream("-e", captioner, *arguments)


def test_pictures_that_cannot_be_written_are_refused_before_the_first_clip(downstream, tmp_path, captioner, clips):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: cannot be written to: .*--pictures gives another place"):
        file = clips / "videos" / "test0.mp4"
        downstream("-m", "inference", "-e", captioner, "--input", file, "--pictures", tmp_path / "file")


def test_a_layer_counted_from_the_last_is_the_same_layer(downstream, tmp_path, pretrained, captions, caplog):
    with caplog.at_level("INFO", logger="mynah"):
        assert downstream("-n", "run", "-u", "vidswin_albert", "-k", pretrained, "-l", "-3", *captions) == 0
    assert "the model that was pretrained" in caplog.text  # H_0 of H_0 to H_2


def test_what_makes_a_run_worthless_is_said(downstream, tmp_path, pretrained, captions, caplog):
    options = ["datarc.language=zh", "scheduler.num_warmup_steps=500", "trainer.val_check_interval=5000"]
    assert downstream("-n", "run", "-u", "vidswin_albert", "-k", pretrained, *captions, *options) == 0
    assert "does not know 50 % of the training captions' pieces" in caplog.text
    assert "the warm-up of 500 steps" in caplog.text
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["best_step"] == 12 and "dev" in metrics  # dev was looked at all the same
    with pytest.raises(UserError, match=r"trainer\.max_steps=6: .*last\.ckpt is at step 12 already"):
        downstream("-e", tmp_path / "run", "-o", "trainer.max_steps=6")
    assert downstream("-e", tmp_path / "run") == 0
    assert "nothing was left to train" in caplog.text
    again = read_json(tmp_path / "run" / "metrics.json")
    assert again["steps"] == 12 and again["dev"] == metrics["dev"]


def test_an_interrupted_test_says_how_to_do_it_again(downstream, evaluated, monkeypatch, caplog):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "caption_scores", interrupt)
    with pytest.raises(KeyboardInterrupt):
        downstream("-m", "evaluate", "-e", evaluated)
    assert f"-m evaluate -e {evaluated} --split test" in caplog.text


def test_captions_without_a_folder_of_videos_do_not_start_the_demo(downstream, pretrained, clips):
    annotation = clips / "vatex_training_v1.0.json"
    options = ["-u", "vidswin_albert", "-k", pretrained, "-d", "vatex_caption", "-o", f"datarc.train={annotation}"]
    with pytest.raises(UserError, match=r"datarc\.file_path: missing; train tell"):
        downstream("-n", "run", *options)


def test_a_reader_that_has_had_enough_ends_inference_quietly(start, captioner, clips):
    process = start("run_downstream.py", "-m", "inference", "-e", str(captioner), "--input", *[str(clips / "videos")])
    process.stdout.close()
    process.stdout = None  # or it would be read in the end
    assert process.wait(timeout=120) == 1


def test_the_command_that_began_a_run_goes_on_with_it_whatever_it_says_of_layers(
    downstream, pretrained, captions, tmp_path
):
    command = ["-n", "run", "-a", "-u", "vidswin_albert", "-k", pretrained, "-l", "-1", *captions]
    for _ in range(2):
        assert downstream(*command) == 0
