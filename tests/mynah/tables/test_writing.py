"""Results as Markdown, CSV, JSON and a picture: they parse back to what the experiments gave."""

import csv
import io
import json
import re
import statistics

import pytest
from PIL import Image

from mynah.tables.cells import assess
from mynah.tables.chart import draw_chart
from mynah.tables.metrics import Metric, formatted
from mynah.tables.plan import cells_of
from mynah.tables.superb import superb, write_superb
from mynah.tables.writing import Grid, csv_text, markdown, other_metrics, write_tables


@pytest.fixture
def grid(table_of, fabricate):
    """Two upstreams on two tasks, one of them failing on the second, two seeds."""
    table = table_of(
        upstreams=["fbank", "b:aalbert=/x|y/last.ckpt"], tasks=["emotion", "sv:emotion"], lrs=[1e-3, 1e-2], seeds=2
    )
    metrics = {"emotion": Metric("accuracy", "max"), "sv": Metric("eer", "min")}
    cells = cells_of(table.config, table.folder)
    for cell in cells:
        key = metrics[cell.column.label].key
        for run in [*cell.runs(1e-3, 1), *cell.runs(1e-2, 1), *cell.runs(1e-2, 2)]:
            if (cell.row.label, cell.column.label) == ("b", "sv"):
                fabricate(run, reason='a, "b"\nc | d')
            else:
                better = (run.lr == 1e-2) == (key == "accuracy")
                fabricate(run, 0.9 if better else 0.1, 0.25 * run.seed + (cell.row.label == "b") / 8, key)
    states = [assess(cell, metrics[cell.column.label], lambda run: run.outcome()) for cell in cells]
    return Grid("t", table.config.upstreams, table.config.tasks, metrics, states, ["A note."])


def test_the_markdown_has_mean_and_deviation_and_the_best_is_bold(grid):
    lines = markdown(grid).splitlines()
    table = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    assert table[0][1:] == ["emotion, accuracy % ↑", "sv, EER % ↓"]
    mean, deviation = statistics.mean([25, 50]), statistics.stdev([25, 50])
    assert table[2] == ["fbank", f"{mean:.2f} ± {deviation:.2f}", f"**{mean:.2f} ± {deviation:.2f}**"]
    assert table[3] == ["b", f"**{mean + 12.5:.2f} ± {deviation:.2f}**", "failed [1]"]
    assert '[1] a, "b" c \\| d  ' in lines and "- A note." in lines


def test_the_csv_has_a_row_for_each_experiment_and_each_cell(grid):
    rows = list(csv.DictReader(io.StringIO(csv_text(grid))))
    cells = [row for row in rows if row["row"] == "cell"]
    runs = [row for row in rows if row["row"] == "run"]
    assert len(cells) == 4 and len(runs) == 3 * 3 + 2
    for cell in cells:
        mine = [
            float(row["test"])
            for row in runs
            if (row["task"], row["upstream"], row["chosen"]) == (cell["task"], cell["upstream"], "true")
        ]
        if cell["status"] == "finished":
            assert float(cell["test"]) == pytest.approx(statistics.mean(mine))
            assert float(cell["deviation"]) == pytest.approx(statistics.stdev(mine))
            assert cell["learning_rate"] == "0.01" if cell["metric"] == "accuracy" else "0.001"
        else:
            assert (mine, cell["test"], cell["reason"]) == ([], "", 'a, "b"\nc | d')
    assert {row["test.loss"] for row in runs if row["status"] == "finished"} == {"2.0"}


def test_the_json_names_scores_as_superb_does_where_the_table_has_the_task_once(grid, table_of):
    content = json.loads(json.dumps(superb(grid)))
    first, second = content["leaderboard"]
    assert first["submitName"] == "fbank" and first["emotion_accuracy"] == 37.5 and second["sv_eer"] == "-"
    assert first["deviations"]["sv_eer"] == pytest.approx(statistics.stdev([25, 50]), abs=1e-5)
    assert second["failures"] == {"sv_eer": ['a, "b"\nc | d']}
    assert content["scores"]["sv_eer"]["higherBetter"] is False
    alone = Grid("t", grid.rows, grid.columns[:1], grid.metrics, grid.states)
    assert superb(alone)["leaderboard"][0]["ER_acc_public"] == 37.5


def test_files_are_written_and_read_back(grid, tmp_path):
    write_tables(grid, tmp_path)
    write_superb(grid, tmp_path)
    assert (tmp_path / "results.md").read_text(encoding="utf-8") == markdown(grid)
    assert (tmp_path / "results.csv").read_text(encoding="utf-8") == csv_text(grid)
    assert json.loads((tmp_path / "results.json").read_text()) == superb(grid)


@pytest.mark.parametrize("values", [(0.2, float("nan")), (0.2, float("inf")), (float("inf"),)])
def test_a_value_that_is_no_number_spoils_no_file(table_of, fabricate, tmp_path, values):
    table = table_of(upstreams=["fbank", "mel"], seeds=len(values))
    metric = Metric("cer", "min")
    for cell, own in zip(cells := cells_of(table.config, table.folder), (values, (0.3, 0.5)), strict=True):
        for seed, value in enumerate(own, start=1):
            fabricate(cell.runs(None, seed)[0], 0.1, value, "cer")
    states = [assess(cell, metric, lambda run: run.outcome()) for cell in cells]
    grid = Grid("t", table.config.upstreams, table.config.tasks, {"emotion": metric}, states)
    write_tables(grid, tmp_path)
    write_superb(grid, tmp_path)
    content = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    first, second = content["leaderboard"]
    assert first["emotion_cer"] == "-" and first["deviations"].get("emotion_cer") is None
    mean = 100 * statistics.mean((0.3, 0.5)[: len(values)])
    assert second["emotion_cer"] == pytest.approx(mean) and f"**{mean:.2f}" in markdown(grid)
    with Image.open(draw_chart(grid, tmp_path)) as picture:
        assert picture.width > 400


def test_other_metrics_are_of_the_seeds_that_count(table_of, fabricate):
    table = table_of(vary=["datarc.fold=1,2"], seeds=2)
    cell = cells_of(table.config, table.folder)[0]
    for run, test in zip([*cell.runs(None, 1), *cell.runs(None, 2)], (0.5, 0.6, 0.9, None), strict=True):
        fabricate(run, test=test) if test else fabricate(run, reason="broken")
    state = assess(cell, Metric("accuracy", "max"), lambda run: run.outcome())
    assert state.mean == pytest.approx(0.55) and dict(other_metrics(state))["accuracy"] == pytest.approx(0.55)


def test_numbers_are_shown_in_percent_where_they_are_rates():
    assert formatted("accuracy", 0.12347) == "12.35"
    assert formatted("wer", 1.5, 0.1) == "150.00 ± 10.00"
    assert formatted("min_dcf", 0.5) == "0.5000"
    assert formatted("accuracy", 1) == "100.00"


def test_counts_are_shown_as_they_are(table_of, fabricate):
    table = table_of(upstreams=["fbank"], tasks=["emotion"], lrs=[1e-3], seeds=2)
    metric = Metric("accuracy", "max")
    [cell] = cells_of(table.config, table.folder)
    for run in [*cell.runs(1e-3, 1), *cell.runs(1e-3, 2)]:
        fabricate(run, 0.5, 0.5)
        path = run.folder / "metrics.json"
        metrics = json.loads(path.read_text())
        metrics["test"].update(trials=37720, clips=run.seed)
        path.write_text(json.dumps(metrics))
    states = [assess(cell, metric, lambda run: run.outcome())]
    text = markdown(Grid("t", table.config.upstreams, table.config.tasks, {"emotion": metric}, states))
    assert re.search(r"trials 37720[, ]", text) and "clips 1.5000" in text


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (24, 4)])
def test_the_picture_holds_any_number_of_rows_and_columns(table_of, fabricate, tmp_path, rows, columns):
    names = [f"{'a very long label indeed ' * 2}{index}:fbank" for index in range(rows)]
    table = table_of(upstreams=names, tasks=[f"t{index}:emotion" for index in range(columns)])
    metrics = {column.label: Metric("loss_of_it", "min") for column in table.config.tasks}
    cells = cells_of(table.config, table.folder)
    for index, cell in enumerate(cells):
        if index % 5 != 1:
            fabricate(cell.runs(None, 1)[0], 0.1, 0.0 if index % 3 else -1.5, "loss_of_it")
    states = [assess(cell, metrics[cell.column.label], lambda run: run.outcome()) for cell in cells]
    path = draw_chart(Grid("t", table.config.upstreams, table.config.tasks, metrics, states), tmp_path)
    with Image.open(path) as picture:
        assert picture.width > 400 and picture.height > 150
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 10
