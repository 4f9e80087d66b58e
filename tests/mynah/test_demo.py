"""The rows of the demo's table."""

from mynah.commands import demo
from mynah.utility.experiments import shipped


def test_weights_that_come_with_mynah_are_a_row_where_there_are_some(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path)
    assert not any("shipped" in row for row in demo.upstreams())
    assert "no weights aalbert-small come with this Mynah" in capsys.readouterr().out
    (tmp_path / "melhubert-small.safetensors").touch()
    assert not any("shipped" in row for row in demo.upstreams())
    capsys.readouterr()
    (tmp_path / "aalbert-small.safetensors").touch()
    assert demo.upstreams()[-1] == "shipped:aalbert=small"
    assert [row.partition(":")[0] for row in demo.upstreams()] == ["fbank", "untrained", "pretrained", "shipped"]
    assert not capsys.readouterr().out
