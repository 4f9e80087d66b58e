"""Tables of experiments that exist, fabricated as run_downstream.py leaves them."""

import json
import logging
import statistics

import pytest

from mynah.tables.compare import compare
from mynah.tables.metrics import Metric
from mynah.tables.writing import main_table
from mynah.utility.errors import UserError


@pytest.fixture
def experiment(tmp_path):
    """experiment(name, ...) -> the folder of a finished experiment."""

    def make(name, test=0.5, dev=0.5, seed=1, lr=1e-3, upstream="fbank", sha=None, pooling="mean", data="d", **more):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        origin = sha and {"given": f"runs/{sha}", "file": f"runs/{sha}/last.ckpt", "sha256": sha}
        record = {"kind": "downstream", "upstream": upstream, "downstream": "emotion", "upstream_checkpoint": origin}
        record |= {"fine_tune": False, "data": {"file_path": "/x", "fingerprints": {"test": data}}, **more}
        (folder / "run.json").write_text(json.dumps(record))
        config = f"seed: {seed}\nmodel: {{pooling: {pooling}}}\noptimizer: {{lr: {lr}}}\ndatarc: {{file_path: /x}}\n"
        (folder / "config.yaml").write_text(config)
        metrics = {"dev": {"accuracy": dev}, "test": {"accuracy": test}, "finished": True}
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder

    return make


def grid_of(*folders):
    return compare(folders, lambda task: Metric("accuracy", "max"))


def values(grid):
    return {(state.cell.row.label, state.cell.column.label): (state.lr, state.values) for state in grid.states}


def test_seeds_repeat_and_dev_chooses_the_rate(experiment, tmp_path):
    for seed, test in ((1, 0.2), (2, 0.4)):
        experiment(f"e/good{seed}", test, dev=0.6, seed=seed, lr=1e-2)
        experiment(f"e/bad{seed}", 0.9, dev=0.5, seed=seed)
    experiment("e/lucky", 0.9, dev=0.9, seed=3)  # a seed that the other rate does not have
    grid = grid_of(tmp_path / "e")
    assert values(grid) == {("fbank", "emotion"): (1e-2, [0.2, 0.4])}
    assert grid.states[0].deviation == pytest.approx(statistics.stdev([0.2, 0.4]))


def test_a_rate_at_the_edge_of_three_is_told(experiment, tmp_path):
    for place, lr in enumerate((1e-3, 1e-2)):
        experiment(f"e/{place}", dev=lr, lr=lr)
    assert not grid_of(tmp_path / "e").states[0].edge
    experiment("e/3", dev=0.5, lr=1e-1)
    assert grid_of(tmp_path / "e").states[0].edge


def test_options_of_any_characters_are_labels(experiment, tmp_path):
    experiment("a", pooling="mean|x", upstream="aalbert", sha="one|two")
    experiment("b", pooling='"back\\\\slash"')
    assert len(grid_of(tmp_path).columns) == 2


def test_checkpoints_are_rows_and_options_and_data_are_columns(experiment, tmp_path):
    experiment("a", 0.1, upstream="aalbert", sha="one")
    experiment("b", 0.2, upstream="aalbert", sha="two")
    experiment("c", 0.3, upstream="aalbert", sha="two", pooling="statistics")
    experiment("d", 0.4, upstream="aalbert", sha="two", data="other")
    grid = grid_of(*(tmp_path / name for name in "abcd"))
    assert [row.label for row in grid.rows] == ["aalbert one", "aalbert two"]
    assert len(grid.columns) == 3 and len(grid.states) == 4
    assert any("model.pooling=statistics" in column.label for column in grid.columns)
    assert "–" in "".join(main_table(grid, []))


def test_the_same_experiment_twice_counts_once(experiment, tmp_path, caplog):
    experiment("e/a", 0.1)
    experiment("e/b", 0.3)
    assert values(grid_of(tmp_path / "e", tmp_path / "e" / "a")) == {("fbank", "emotion"): (1e-3, [0.1])}
    assert "the same seed and options" in caplog.text


def test_what_is_no_finished_experiment_of_a_task_is_refused_or_told(experiment, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "mynah")
    open_one = experiment("open")
    (open_one / "metrics.json").unlink()
    pretraining = tmp_path / "pretraining"
    pretraining.mkdir()
    (pretraining / "run.json").write_text('{"kind": "pretrain"}')
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (open_one, "none of its 1 experiments is finished"),
        (pretraining, "holds a pretraining"),
        (tmp_path / "empty", "holds no experiment"),
        (tmp_path / "none", "no such folder"),
    ):
        with pytest.raises(UserError, match=message):
            grid_of(folder)
    experiment("done", 0.7)
    assert values(grid_of(tmp_path)) == {("fbank", "emotion"): (1e-3, [0.7])}
    assert f"{open_one}: not finished" in caplog.text
