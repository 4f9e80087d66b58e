"""One text or path where several may be given."""

from pathlib import Path

import pytest

import mynah
from mynah.utility.configuration.several import as_several
from mynah.utility.errors import UserError
from mynah.utility.experiments.options import RunOptions


@pytest.mark.parametrize("given", ["a=b", Path("a")])
def test_one_is_a_list_of_one_and_several_are_as_they_were(given):
    assert as_several(given) == [given]
    assert as_several((given, given)) == as_several(iter([given, given])) == [given, given]


def test_options_of_a_run_take_one_text():
    options = RunOptions(overrides="seed=1", plugin_paths="folder")
    assert (options.overrides, options.plugin_paths) == (["seed=1"], ["folder"])


def test_a_plugin_path_may_stand_alone(tmp_path):
    (tmp_path / "downstream" / "mine").mkdir(parents=True)
    (tmp_path / "downstream" / "mine" / "expert.py").write_text('"""Mine."""\n')
    assert "mine" in mynah.list_downstreams(str(tmp_path))
    assert "mine" in mynah.list_downstreams(tmp_path)
    with pytest.raises(UserError, match="plugin path nowhere does not exist"):
        mynah.list_downstreams("nowhere")
