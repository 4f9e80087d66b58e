"""Weights exported from tiny runs: what the file gives, how it is taken by its name, and what is refused."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch

import mynah
from mynah.commands import export as run_export
from mynah.commands import features as kept_features
from mynah.tables.benchmark import BenchmarkOptions, prepare
from mynah.upstream import exporting
from mynah.upstream.exporting import ExportOptions, export, fixed_signal
from mynah.upstream.melhubert.hubconf import melhubert
from mynah.utility.errors import UserError
from mynah.utility.experiments import shipped
from mynah.utility.experiments.checkpoint import METADATA, save_atomically
from mynah.utility.experiments.exported import read_exported

TINY = [
    "datarc.max_timestep=8000",
    "datarc.min_timestep=4000",
    "datarc.valid_fraction=0.2",
    "model.hidden_size=16",
    "model.num_attention_heads=2",
    "model.intermediate_size=32",
    "model.num_hidden_layers=2",
    "dataloader.batch_size=4",
    "dataloader.num_workers=0",
    "optimizer.lr=1e-3",
    "trainer.max_steps=2",
    "trainer.accumulate_grad_batches=1",
    "trainer.val_check_interval=2",
    "trainer.enable_progress_bar=false",
    "logging.pictures_every_n_steps=0",
]
CLUSTERS = "objective.clusters.num_clusters=11"
NO_STEP = ["trainer.max_steps=1", "optimizer.lr=1e-30", "trainer.val_check_interval=1"]
LICENSES = {"tones": "made for the test, none"}


@pytest.fixture(scope="module")
def data(corpus) -> str:
    return f"datarc.file_path={{tones: {corpus}}}"


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> Path:
    """A pretraining run of melhubert, whose input is normalized over the corpus."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYNAH_CACHE", str(root / "cache"))
        mynah.pretrain("melhubert", name="exp", root=root, overrides=[data, *TINY, CLUSTERS])
    return root / "exp"


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """An empty folder in place of weights/."""
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


@pytest.fixture
def small(run, weights) -> Path:
    """The run's weights under the name small."""
    return export(ExportOptions(source=run, name="small", licenses=LICENSES))["file"]


def last(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def states_of(expert) -> tuple:
    with torch.no_grad():
        return expert.eval()([fixed_signal()])["hidden_states"]


def test_the_file_gives_the_features_of_the_run_with_its_weights_rounded(run, small):
    rounded = melhubert(ckpt=run)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.half().float()
    by_name = mynah.load("melhubert", ckpt="small")
    assert {value.dtype for value in by_name.state_dict().values()} == {torch.float32}
    assert (by_name.model.features.statistics["mel_0"].mean != 0).all()
    for one, other in zip(states_of(rounded), states_of(by_name), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(states_of(melhubert(ckpt=run)), states_of(by_name), strict=True):
        assert (one - other).norm() < 0.01 * one.norm()
        assert not torch.equal(one, other)


def test_only_what_features_need_is_in_the_file(run, small):
    names = read_exported(small).weights.keys()
    everything = last(run)["state_dict"].keys()
    assert everything - names == {name for name in everything if name.startswith("model.objective.")}
    assert small.stat().st_size < 0.4 * (run / "checkpoints" / "last.ckpt").stat().st_size
    provenance = read_exported(small).provenance
    assert provenance["data"]["tones"]["license"] == LICENSES["tones"]
    assert provenance["data"]["tones"]["utterances"] == 24
    assert provenance["source"]["step"] == 2
    assert provenance["recipe"]["seed"] == 1337
    assert str(run.parent) not in json.dumps(provenance)


def test_the_model_is_copied_and_built_again_as_any_other(small):
    expert = melhubert(ckpt="small")
    again = melhubert(**copy.deepcopy(expert).build_arguments())
    again.load_state_dict(expert.state_dict())
    assert all(map(torch.equal, states_of(expert), states_of(again)))
    assert melhubert(ckpt="small", num_hidden_layers=1).num_hidden_states == 2  # one layer, used once less


def test_the_line_that_says_what_was_loaded_names_the_file(small, caplog, tmp_path, monkeypatch):
    (tmp_path / "here" / "small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with caplog.at_level("INFO", logger="mynah"):
        melhubert(ckpt="small")
    assert (
        f"loaded small ({small}, which comes with Mynah; ./small, which is there too, was not taken)" in caplog.text
    )
    with pytest.raises(UserError, match=r"small: no checkpoints/last\.ckpt in this directory"):
        melhubert(ckpt="./small")


def test_a_task_takes_the_name_and_its_records_and_cache_tell_of_it(small, tmp_path, corpus, capsys):
    options = [f"datarc.file_path={corpus}", "trainer.max_steps=2", "dataloader.num_workers=0", "features.cache=disk"]
    task = {"upstream": "melhubert", "checkpoint": "small", "root": tmp_path, "overrides": options}
    mynah.train("voxceleb1_speaker", name="task", **task)
    origin = json.loads((tmp_path / "task" / "run.json").read_text())["upstream_checkpoint"]
    assert origin == {"given": "small", "file": str(small), "sha256": exporting.file_digest(small)}
    kept_features.run(kept_features.parse_arguments(arguments=[]))
    assert "melhubert (small)" in capsys.readouterr().out
    mynah.evaluate(tmp_path / "task")
    small.unlink()
    mynah.evaluate(tmp_path / "task")  # a task's checkpoint holds its upstream


def test_a_table_knows_the_file_by_its_sha256(small, tmp_path):
    given = {"upstreams": ["melhubert=small"], "tasks": ["voxceleb1_speaker"]}
    table, _ = prepare(BenchmarkOptions(name="table", root=tmp_path, given=given))
    (row,) = table.config.upstreams
    assert (row.label, row.sha256) == ("melhubert small", exporting.file_digest(small))


def test_a_new_run_begins_with_them(small, tmp_path, data):
    mynah.pretrain(
        "melhubert", name="more", root=tmp_path, init_from="small", overrides=[data, *TINY, CLUSTERS, *NO_STEP]
    )
    begun = last(tmp_path / "more")["state_dict"]
    for name, value in read_exported(small).weights.items():
        torch.testing.assert_close(begun[name], value, atol=1e-20, rtol=0, msg=name)  # the step has next to no size
    assert begun["model.objective.centroids"].any()
    record = json.loads((tmp_path / "more" / "run.json").read_text())
    assert record["init_from"]["file"] == str(small)


def test_a_second_stage_clusters_their_hidden_states(small, tmp_path, data):
    second = [data, *TINY, CLUSTERS, "init.clusters=small:1"]
    mynah.pretrain("melhubert", name="second", root=tmp_path, overrides=second)
    taught = last(tmp_path / "second")["state_dict"]
    assert taught["model.objective.centroids"].shape == (11, 16)
    for name, value in read_exported(small).weights.items():
        teacher = name.replace("model.", "model.objective.teacher.trunk.", 1)
        assert torch.equal(taught[teacher], value), name
    done = export(ExportOptions(source=tmp_path / "second", name="second", licenses={**LICENSES, "first": "CC0"}))
    assert "It began with an earlier model" in done["card"].read_text()
    assert "init.clusters=small:1" in done["card"].read_text()


def test_targets_statistics_are_left_out_and_measured_anew(tmp_path, weights, data):
    """Of a reconstruction model whose targets are normalized over the corpus, other than its input."""
    targets = ["objective.reconstruction.targets=[{feature: linear, cmvn: corpus}]", "features.input.cmvn=corpus"]
    tiny = [*TINY, "model.frames_per_position=2"]
    mynah.pretrain("aalbert", name="exp", root=tmp_path, overrides=[data, *tiny, *targets])
    linear = "model.features.statistics.linear_0.mean"
    measured = last(tmp_path / "exp")["state_dict"][linear]
    done = export(ExportOptions(source=tmp_path / "exp", name="small", licenses=LICENSES))
    assert linear not in read_exported(done["file"]).weights
    assert "features, objective" in done["card"].read_text()
    for name, source in (("own", tmp_path / "exp"), ("shipped", "small")):
        options = {"root": tmp_path, "init_from": source}
        mynah.pretrain("aalbert", name=name, **options, overrides=[data, *tiny, *targets, *NO_STEP])
        assert torch.equal(last(tmp_path / name)["state_dict"][linear], measured)
        clusters = [CLUSTERS, "objective.name=clusters", *targets[1:], *NO_STEP]
        mynah.pretrain("aalbert", name=f"{name}_clusters", **options, overrides=[data, *tiny, *clusters])
        assert linear not in last(tmp_path / f"{name}_clusters")["state_dict"]
    second = [data, *TINY, CLUSTERS, f"init.clusters={tmp_path / 'exp'}:1"]
    mynah.pretrain("melhubert", name="second", root=tmp_path, overrides=second)


def test_there_is_no_run_to_go_on_with(small, tmp_path):
    with pytest.raises(UserError, match="exported weights, without the state of a run"):
        mynah.pretrain(resume=small, name="more", root=tmp_path)


def test_other_names_and_other_upstreams_are_refused(small, tmp_path, corpus):
    for upstream, ckpt, message in (
        ("melhubert", "smal", "smal: no such checkpoint, neither a file here nor .* .did you mean small"),
        ("aalbert", "small", "aalbert comes without weights"),
        ("aalbert", "melhubert-small", "holds upstream 'melhubert', but 'aalbert' was asked for; give -u melhubert"),
        ("aalbert", str(small), "holds upstream 'melhubert', but 'aalbert' was asked for; give -u melhubert"),
        ("fbank", "small", "fbank has no weights"),
    ):
        with pytest.raises(UserError, match=message):
            mynah.load(upstream, ckpt=ckpt)
    with pytest.raises(UserError, match="smal: no such checkpoint, neither a file here"):
        mynah.train("voxceleb1_speaker", upstream="melhubert", checkpoint="smal", name="x", root=tmp_path)
    small.rename(small.with_name("aalbert-small.safetensors"))  # the name lies
    with pytest.raises(UserError, match="holds upstream 'melhubert', but 'aalbert' was asked for"):
        mynah.load("aalbert", ckpt="small")


def test_the_command_says_what_it_wrote(run, weights, monkeypatch, capsys, tmp_path):
    given = ["x", str(run / "checkpoints" / "best.ckpt"), "--name", "tiny", "--license", "tones=CC BY 4.0"]
    monkeypatch.setattr(sys, "argv", given)
    assert run_export.run(run_export.parse_arguments()) == 0
    printed = capsys.readouterr().out
    assert f"{weights / 'melhubert-tiny.safetensors'}: 0.0" in printed and "H_0 " in printed and "H_2 " in printed
    card = (weights / "melhubert-tiny.md").read_text()
    for words in (
        "| tones | CC BY 4.0 | 24 | ",
        "TO FILL IN",
        "model.hidden_size=16",
        "2 optimizer steps",
    ):
        assert words in card
    assert str(run.parent) not in card
    digest = exporting.file_digest(weights / "melhubert-tiny.safetensors")
    assert digest in card and digest in printed


def test_reading_an_export_says_nothing_of_pickles(small, recwarn):
    """Torch warns where a file of another kind is read as a pickle."""
    for upstream, source in (("melhubert", "small"), ("melhubert", small)):
        mynah.load(upstream, ckpt=source)
    assert not [str(warning.message) for warning in recwarn if "pickle" in str(warning.message)]


def test_an_earlier_file_is_replaced_only_where_that_is_asked_for(small, run):
    card, content = small.with_suffix(".md"), small.read_bytes()
    card.write_text("my results")
    options = {"source": run, "name": "small", "licenses": {"tones": "CC0"}}
    with pytest.raises(UserError, match="exist already; --overwrite replaces it"):
        export(ExportOptions(**options))
    small.unlink()
    with pytest.raises(UserError, match=r"small\.md exists already"):  # a card alone is someone's work as well
        export(ExportOptions(**options))
    export(ExportOptions(**options, overwrite=True))
    assert small.read_bytes() != content
    assert card.with_name("melhubert-small.earlier.md").read_text() == "my results"
    assert "CC0" in card.read_text()
    export(ExportOptions(**options, overwrite=True))
    assert card.with_name("melhubert-small.earlier.md").read_text() == "my results"  # and not the blank one
    assert sorted(path.name for path in small.parent.iterdir()) == [
        "melhubert-small.earlier.md",
        "melhubert-small.md",
        "melhubert-small.safetensors",
        "melhubert-small_2.earlier.md",
    ]


def test_a_full_disk_leaves_no_weights_behind(run, weights, monkeypatch):
    class Full:
        def __init__(self, path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "replacing", Full)
    with pytest.raises(UserError, match=r"small\.safetensors: could not be written: No space left"):
        export(ExportOptions(source=run, name="small", licenses=LICENSES))
    assert not list(weights.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licenses": {}}, 'the licence of the data is part of the file: give --license tones="CC BY 4.0"'),
        ({"licenses": {"tones": " "}}, "give --license tones"),
        (
            {"licenses": {**LICENSES, "tone": "CC0"}},
            "--license tone: the run was trained on tones; did you",
        ),
        *(
            ({"name": name}, "expected a word of at most 60 characters")
            for name in ("", "Small", "a b", "../a", "a.b", "-a", "ä", "a" * 61, "a\n")
        ),
        ({"source": "nowhere"}, "nowhere: no such checkpoint"),
    ],
)
def test_a_users_mistake_is_named_and_nothing_is_written(run, weights, change, message):
    with pytest.raises(UserError, match=message):
        export(ExportOptions(**{"source": run, "name": "small", "licenses": LICENSES, **change}))
    assert not weights.exists()


def changed(run: Path, folder: Path, change) -> Path:
    """The run's checkpoint with something changed, in an experiment of its own."""
    content = last(run)
    change(content)
    save_atomically(content, folder / "odd" / "checkpoints" / "last.ckpt")
    return folder / "odd"


def test_checkpoints_that_cannot_be_exported_are_refused(run, small, tmp_path):
    def too_large(content: dict) -> None:
        content["state_dict"]["model.input_projection.weight"][0, 0] = 7e4

    def too_fine(content: dict) -> None:  # differences of weights that half precision does not have
        for name in ("model.input_norm.weight", "model.input_norm.bias"):
            content["state_dict"][name].fill_(1e-9)

    def without_layer(content: dict) -> None:
        del content["state_dict"]["model.input_norm.bias"]

    def of_video(content: dict) -> None:
        content[METADATA]["config"] = {"model": {}}

    for change, message in (
        (too_large, "too large for half precision .model.input_projection.weight"),
        (too_fine, "half precision changes hidden states by .* nothing was written"),
        (without_layer, "its weights do not fit the model .1 missing: input_norm.bias"),
        (of_video, "only acoustic models can be exported"),
    ):
        source = changed(run, tmp_path, change)
        with pytest.raises(UserError, match=message):
            export(ExportOptions(source=source, name="other", licenses=LICENSES))
    with pytest.raises(UserError, match="is exported already"):
        export(ExportOptions(source=small, name="other", licenses=LICENSES))
    assert not list(small.parent.glob("*other*"))


def test_data_that_has_gone_and_a_run_without_records_leave_places_in_the_card(run, weights, tmp_path):
    def unknown(content: dict) -> None:
        del content[METADATA]["pretrain_config"]

    with pytest.raises(UserError, match=r'give --license DATA="CC BY 4\.0"'):
        export(ExportOptions(source=changed(run, tmp_path, unknown), name="stray"))
    done = export(ExportOptions(source=changed(run, tmp_path, unknown), name="stray", licenses={"mine": "CC0"}))
    assert "-c TO FILL IN" in done["card"].read_text() and "| mine | CC0 |" in done["card"].read_text()

    def elsewhere(content: dict) -> None:
        content[METADATA]["pretrain_config"]["datarc"]["file_path"] = {"tones": str(tmp_path / "gone")}

    done = export(ExportOptions(source=changed(run, tmp_path, elsewhere), name="small", licenses=LICENSES))
    card = done["card"].read_text()
    assert "| TO FILL IN | TO FILL IN |" in card and "Commits that trained it: TO FILL IN" in card
