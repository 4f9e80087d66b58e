"""Tasks and upstreams that break their contract are told before training."""

import json
import shutil
import textwrap

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mynah
from mynah.downstream.build import TaskOptions
from mynah.downstream.training import evaluate, train
from mynah.utility.errors import UserError
from mynah.utility.experiments.integrity import file_digest

FAST = ["trainer.max_steps=6", "trainer.val_check_interval=3", "trainer.enable_progress_bar=false"]
FAST += ["dataloader.num_workers=0", "scheduler.name=constant", "trainer.log_every_n_steps=1"]

TASK = """
    '''A task on top of the speakers'.'''
    import torch
    from mynah.downstream.voxceleb1_speaker import expert

    class DownstreamExpert(expert.DownstreamExpert):
        '''A task.'''
        def forward(self, split, features, lengths, labels, records, names):
            loss = super().forward(split, features, lengths, labels, records, names)
            {forward}
            return loss
        {more}
"""
UPSTREAM = """
    '''An upstream that forgets an option.'''
    import torch
    from mynah.upstream.interfaces import SpeechUpstream

    class UpstreamExpert(SpeechUpstream):
        '''Frames through a linear layer.'''
        name, num_hidden_states, samples_per_position, min_samples = "{name}", 1, 160, 160

        def __init__(self, width):
            super().__init__()
            self.hidden_size = width
            self.linear = torch.nn.Linear(160, width)

        def encode(self, wavs, lengths, num_hidden_states):
            frames = wavs[:, : wavs.shape[1] // 160 * 160].unflatten(1, (-1, 160))
            return (self.linear(frames),), lengths // 160
        {more}
"""
HUBCONF = """
    def {name}(ckpt=None, width=8):
        '''An upstream that forgets an option.'''
        from .expert import UpstreamExpert
        return UpstreamExpert({made})
"""


def write(path, text, **parts):
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / "__init__.py").write_text('"""A plugin."""\n')
    filled = textwrap.dedent(text)
    for name, value in parts.items():
        filled = filled.replace(f"{{{name}}}", value)
    path.write_text(filled)


plugin_names: dict[str, str] = {}
"""Test -> its task: a module of its own in this process."""


@pytest.fixture
def run(tmp_path, corpus, request):
    """run(forward=..., more=...) trains a task whose forward and class have these lines more."""

    def go(forward="pass", more="pass", name="run", **options):
        task = plugin_names.setdefault(request.node.name, f"task_{len(plugin_names)}")
        place = tmp_path / "plugins" / "downstream" / task
        write(place / "expert.py", TASK, forward=forward, more=more)
        shutil.copy(mynah.ROOT / "downstream" / "voxceleb1_speaker" / "config.yaml", place)
        values = [f"datarc.file_path={corpus}", *FAST, *options.pop("overrides", [])]
        plugins = {"plugin_paths": [tmp_path / "plugins"]}
        given = {"root": tmp_path, "name": name, "upstream": "fbank", "downstream": task, **options}
        return train(TaskOptions(**given, overrides=values, **plugins))

    return go


@pytest.mark.parametrize(
    ("forward", "more", "said"),
    [
        ("loss = loss.repeat(3)", "pass", r"forward returned a tensor of shape \(3,\); expected the mean loss"),
        (
            "loss = float(loss)",
            "pass",
            "forward returned float; expected the mean loss of the batch",
        ),
        ("loss = None", "pass", "forward returned NoneType; expected the mean loss"),
        (
            "records and records['loss'].append(1.0)",
            "pass",
            r"records of unequal lengths \(.*loss 3.*an item",
        ),
        (
            "features @ torch.ones(3)",
            "pass",
            r"forward failed on 2 items of dev: RuntimeError: .*expert\.py",
        ),
        ("labels['x']", "pass", "forward failed on 2 items of dev: TypeError"),
    ],
)
def test_a_forward_that_breaks_its_contract_is_told_before_training(run, tmp_path, forward, more, said):
    with pytest.raises(UserError, match=said):
        run(forward, more)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_predict_that_does_not_take_what_it_is_given_is_told(run, tmp_path):
    with pytest.raises(UserError, match=r"expert\.py: predict is called with features, lengths and signals, but"):
        run(more="predict = lambda self, features, lengths: []")


def test_a_monitor_that_is_no_metric_is_told(run, tmp_path):
    with pytest.raises(UserError, match="its monitor is 'acuracy', but log_records returned only accuracy, top5"):
        run(more="monitor = 'acuracy'")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_task_logs_the_parts_of_its_loss(run, tmp_path):
    run("self.scalars = {'loss_one': loss.detach(), 'loss_two': 2.0}")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert len(events.Scalars("loss_one")) == 6
    assert {each.value for each in events.Scalars("loss_two")} == {2.0}


@pytest.mark.parametrize(
    ("more", "made", "said"),
    [
        ("def build_arguments(self): return {'width': 9}", "width", "builds a model of other weights"),
        ("def build_arguments(self): return {'breadth': 16}", "width", "building it by them failed: TypeError"),
    ],
)
def test_an_upstream_that_could_not_be_rebuilt_is_told_before_training(run, tmp_path, more, made, said):
    name = f"forgetful_{len(more)}"
    place = tmp_path / "plugins" / "upstream" / name
    write(place / "expert.py", UPSTREAM, more=more, name=name)
    write(place / "hubconf.py", HUBCONF, made=made, name=name)
    with pytest.raises(UserError, match=f"build_arguments of upstream '{name}'.*{said}"):
        run(upstream=name)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "hidden_size = property(lambda self: 9, lambda self, value: None)",
            r"shape \(1, .*, 8\), but by its hidden",
        ),
        ("num_hidden_states = 2", "gives 1 hidden states, but its num_hidden_states is 2"),
        ("min_samples = property(lambda self: self.nothing)", "sets no min_samples"),
    ],
)
def test_an_upstream_that_is_not_what_it_says_is_told_as_the_upstreams_fault(run, tmp_path, more, said):
    name = f"wrong_{len(more)}"
    place = tmp_path / "plugins" / "upstream" / name
    arguments = "def build_arguments(self): return {'width': 8}"
    write(place / "expert.py", UPSTREAM, more=f"{arguments}\n    {more}", name=name)
    write(place / "hubconf.py", HUBCONF, made="width", name=name)
    with pytest.raises(UserError, match=f"upstream '{name}'.*{said}"):
        run(upstream=name)


def test_layer_weights_are_logged_drawn_and_written(run, tmp_path):
    options = {"upstream": "aalbert", "overrides": ["optimizer.lr=0.1"]}
    (tmp_path / "model.yaml").write_text("model: {num_hidden_layers: 2, hidden_size: 16, num_attention_heads: 2}\n")
    metrics = run(model_config=tmp_path / "model.yaml", **options)
    weights = metrics["layer_weights"]
    assert list(weights) == ["0", "1", "2"] and sum(weights.values()) == pytest.approx(1)
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    expected = best["features.featurizer.weights"].softmax(0).tolist()
    assert list(weights.values()) == pytest.approx(expected)
    assert (tmp_path / "run" / "layer_weights.png").stat().st_size > 5000
    tags = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Tags()["scalars"]
    assert {f"layer_weights/{layer}" for layer in range(3)} <= set(tags)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["layer_weights"] == weights


def test_tensorboards_hparams_compare_experiments(run, tmp_path):
    run()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    plugin = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for name in (b"optimizer.lr", b"upstream", b"fbank", b"features.selection"):
        assert name in plugin, name
    assert b"dev_accuracy" in events.summary_metadata["_hparams_/experiment"].plugin_data.content


def test_evaluations_of_other_data_have_files_of_their_own(run, tmp_path, corpus):
    run()
    folder = tmp_path / "run"
    own = {path: path.read_bytes() for path in (folder / "test").iterdir()}
    plugins = {"plugin_paths": [tmp_path / "plugins"]}
    fewer = shutil.copytree(corpus, tmp_path / "fewer")
    for number in range(3):
        (fewer / "speaker0" / "chapter" / f"{number}.wav").unlink()
    other = evaluate(TaskOptions(resume=folder, overrides=[f"datarc.file_path={fewer}"], **plugins))
    assert {path: path.read_bytes() for path in (folder / "test").iterdir()} == own
    [place] = [path for path in folder.glob("test_*") if path.is_dir()]
    about = json.loads((place / "evaluation.json").read_text())
    assert about["file_path"] == str(fewer) and about["split"] == "test"
    assert json.loads((place / "metrics.json").read_text()) == {key: other[key] for key in other if key != "split"}
    evaluate(TaskOptions(resume=folder, **plugins), "dev")
    evaluate(TaskOptions(resume=folder, **plugins))
    assert (folder / "dev" / "metrics.json").is_file()
    assert (folder / "test" / "metrics.json").read_bytes() == own[folder / "test" / "metrics.json"]


def test_evaluations_with_options_that_change_results_have_files_of_their_own_and_others_have_not(run, tmp_path):
    """Means are not rounded on disk, but frames are."""
    plugins = [tmp_path / "plugins"]

    def folder_of(name: str, *overrides: str) -> str:
        folder = tmp_path / name
        before = {path.name for path in folder.glob("test_*")}
        evaluate(TaskOptions(resume=folder, overrides=list(overrides), plugin_paths=plugins))
        [report] = {path.name for path in folder.glob("test_*") if path.is_dir()} - before or {"test"}
        return report

    run(name="means")
    assert folder_of("means", "features.cache=disk", "dataloader.eval_batch_size=2") == "test"
    assert folder_of("means", "trainer.precision=32-true", "features.cache_gib=0.5") == "test"
    assert folder_of("means", "trainer.precision=bf16-mixed").startswith("test_trainer.precision=bf16-mixed_")
    assert folder_of("means", "trainer.limit_test_batches=1").startswith("test_trainer.limit_test_batches=1_")
    run(name="frames", overrides=["model.pooling=statistics", "features.cache=off"])
    assert folder_of("frames", "features.cache=memory") == "test"
    assert folder_of("frames", "features.cache=disk").startswith("test_features.cache=disk_")


def test_metrics_speak_of_the_best_checkpoint(run, tmp_path):
    metrics = run()
    folder = tmp_path / "run"
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert metrics["best_step"] == best["global_step"]
    again = evaluate(TaskOptions(resume=folder, plugin_paths=[tmp_path / "plugins"]), "dev")
    assert metrics["dev"] == pytest.approx({key: again[key] for key in metrics["dev"]}, rel=1e-5)


def test_an_unknown_split_is_told_before_the_checkpoint_is_read():
    with pytest.raises(UserError, match="unknown split 'valid'; expected one of train, dev, test"):
        evaluate(TaskOptions(resume="nowhere"), "valid")


def tiny_upstream(tmp_path, corpus, name, seed):
    values = ["model.hidden_size=16", "model.num_attention_heads=2", "model.num_hidden_layers=1"]
    values += ["model.intermediate_size=16", f"datarc.file_path={{t: {corpus}}}", "datarc.min_timestep=1600"]
    values += ["datarc.max_timestep=4000", "trainer.max_steps=1", "dataloader.num_workers=0", f"seed={seed}"]
    mynah.pretrain("aalbert", name=name, root=tmp_path / "up", overrides=[*values, *FAST[2:4]])
    return tmp_path / "up" / name


def test_another_upstream_checkpoint_beside_a_is_refused_and_a_copy_of_the_same_is_not(run, tmp_path, corpus):
    one, other = (tiny_upstream(tmp_path, corpus, name, seed) for name, seed in (("one", 1), ("other", 2)))
    more = ["trainer.max_steps=7"]
    run(upstream="aalbert", checkpoint=one)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["upstream_checkpoint"]["sha256"] == file_digest(one / "checkpoints" / "last.ckpt")
    with pytest.raises(UserError, match=r"-k .*other: .* trained on the features of another checkpoint, .*one"):
        run(upstream="aalbert", checkpoint=other, auto_resume=True, overrides=more)
    copied = one.rename(tmp_path / "up" / "renamed")
    assert run(upstream="aalbert", checkpoint=copied, auto_resume=True, overrides=more)["steps"] == 7


def test_an_untrained_upstream_is_drawn_from_the_seed(run, tmp_path):
    (tmp_path / "model.yaml").write_text("model: {num_hidden_layers: 1, hidden_size: 16, num_attention_heads: 2}\n")
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(name=name, upstream="aalbert", model_config=tmp_path / "model.yaml", overrides=[f"seed={seed}"])
        weights = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        drawn.append(weights["features.upstream.model.input_projection.weight"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
