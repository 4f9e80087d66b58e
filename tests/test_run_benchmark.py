"""run_benchmark.py as a user meets it: killed and run again, two at once, refused, called from Python."""

import json

import pytest

import mynah
from mynah.commands import benchmark as run_benchmark
from mynah.utility.errors import UserError


def test_tables_that_are_killed_or_shared_end_as_the_one_left_alone(script):
    status, output = script("tests/kills.py", "--kills", "1", "--seeds", "1")
    assert status == 0 and "no difference" in output, output


def run(*arguments):
    return run_benchmark.run(run_benchmark.parse_arguments("run_benchmark.py", [*map(str, arguments)]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-n NAME is needed"),
        (["-n", "a/b", "--upstreams", "fbank", "--tasks", "emotion"], "expected a name, not a path"),
        (["-n", "t"], "there is no table here"),
        (["-n", "t", "--upstreams", "fbank"], "a table needs --tasks"),
        (["-n", "t", "--upstreams", "fbnk", "--tasks", "emotion"], "did you mean fbank"),
        (["-n", "t", "--upstreams", "fbank", "--tasks", "emotoin"], "did you mean emotion"),
        (
            ["-n", "t", "--upstreams", "fbank", "--tasks", "emotion", "-o", "model.poling=x"],
            "did you mean model.pooling",
        ),
        (["-n", "t", "--upstreams", "fbank", "--tasks", "emotion", "--vary", "datarc.fold=1,9"], "datarc.fold"),
        (["-n", "t", "--upstreams", "aalbert=nowhere/a.ckpt", "--tasks", "emotion"], "row .*: no such checkpoint"),
        (["-n", "t", "--upstreams", "aalbert@no.yaml", "--tasks", "emotion"], "no.yaml: no such file"),
        (["-n", "t", "--upstreams", "fbank", "aalbert=smal", "--tasks", "emotion"], "did you mean small"),
        (["-n", "t", "--upstreams", "fbank", "fbank", "--tasks", "emotion"], "fbank is given twice"),
        (["-n", "t", "--upstreams", "fbank", "--tasks", "emotion", "emotion"], "emotion is given twice"),
        (["-n", "t", "--compare", "x", "--seeds", 2], "leave what is to be trained out"),
        (["--compare", "x"], "no such folder"),
    ],
)
def test_what_no_table_can_be_made_of_is_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        run("-p", tmp_path / "tables", *arguments)
    assert not (tmp_path / "tables").exists()


def test_python_gets_the_results_of_a_table_and_its_errors(tmp_path):
    with pytest.raises(UserError, match="did you mean seeds"):
        mynah.benchmark("t", root=tmp_path, upstreams=["fbank"], tasks=["emotion"], seed=2)


def test_a_finished_table_is_written_again_and_compared(tmp_path, capsys):
    """Nothing is left to run: results come from what the experiments wrote."""
    folder = tmp_path / "t" / "runs" / "emotion" / "fbank" / "seed1"
    folder.mkdir(parents=True)
    (tmp_path / "t" / "table.yaml").write_text("upstreams: [{label: fbank, upstream: fbank}]\ntasks: [emotion]\n")
    metrics = {"dev": {"accuracy": 0.5}, "test": {"accuracy": 0.25, "chance": 0.2}, "finished": True}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert run("-p", tmp_path, "-n", "t") == 0
    assert "| fbank | 25.00" in capsys.readouterr().out
    assert json.loads((tmp_path / "t" / "results.json").read_text())["leaderboard"][0]["ER_acc_public"] == 25.0
    assert (tmp_path / "t" / "results.png").stat().st_size > 1000
