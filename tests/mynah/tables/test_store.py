"""A table's folder: begun, extended, refused."""

import logging
from pathlib import Path

import pytest

from mynah.tables.config import DEFAULT_OPTIONS, complete
from mynah.tables.plan import cells_of
from mynah.tables.store import forget_failures, known_table, open_table
from mynah.utility.configuration.load import save_config
from mynah.utility.errors import UserError


def test_a_table_is_begun_and_gone_on_with(tmp_path, config_of):
    given = config_of(lrs=[1e-3], seeds=2)
    table = open_table(tmp_path / "t", given)
    assert open_table(tmp_path / "t", None).config == table.config == known_table(tmp_path / "t") == given


def test_rows_columns_rates_and_seeds_can_be_added(tmp_path, config_of, caplog):
    open_table(tmp_path / "t", config_of(lrs=[1e-3], seeds=2))
    caplog.set_level(logging.INFO, "mynah")
    more = config_of(upstreams=["mel"], tasks=["emotion", "x:emotion"], lrs=[1e-2], seeds=1)
    config = open_table(tmp_path / "t", more).config
    assert [row.label for row in config.upstreams] == ["fbank", "mel"]
    assert [column.label for column in config.tasks] == ["emotion", "x"]
    assert (config.lrs, config.seeds) == ([1e-3, 1e-2], 2)
    assert "upstreams added: mel" in caplog.text and "has other upstreams too: fbank" in caplog.text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"options": ["datarc.fold=2"]},
            "task 'emotion' has the options features.cache=disk, not features.cache=disk datarc.fold=2; give it",
        ),
        ({"upstreams": ["fbank:mel"]}, "upstream 'fbank' has the upstream fbank, not mel"),
        ({"upstreams": ["fbank:fbank@x.yaml"]}, "the configuration none, not x.yaml"),
        ({"vary": ["datarc.fold=1,2"]}, "--vary none, not datarc.fold=1,2"),
        ({"sweep": "all"}, "begun with --sweep first, not all"),
        ({"lrs": [1e-3]}, "has the tasks' own learning rates"),
    ],
)
def test_what_would_mix_two_tables_is_refused_and_changes_nothing(tmp_path, config_of, changed, message):
    open_table(tmp_path / "t", config_of())
    before = (tmp_path / "t" / "table.yaml").read_bytes()
    with pytest.raises(UserError, match=message):
        open_table(tmp_path / "t", config_of(**changed))
    assert (tmp_path / "t" / "table.yaml").read_bytes() == before


@pytest.mark.parametrize("key", ["dataloader.num_workers", "features.disk_gib"])
def test_options_that_change_no_result_may_change(tmp_path, config_of, key):
    open_table(tmp_path / "t", config_of(options=[f"{key}=1"]))
    config = open_table(tmp_path / "t", config_of(options=[f"{key}=2"])).config
    assert config.tasks[0].options == [*DEFAULT_OPTIONS, f"{key}=2"]


def test_another_checkpoint_under_the_same_name_is_refused_and_one_that_is_gone_is_not(tmp_path, config_of):
    checkpoint = tmp_path / "a.ckpt"
    checkpoint.write_bytes(b"one")
    given = config_of(upstreams=[f"aalbert={checkpoint}"])
    first = open_table(tmp_path / "t", given).config
    assert len(first.upstreams[0].sha256) == 64
    checkpoint.unlink()
    assert open_table(tmp_path / "t", given).config == first
    checkpoint.write_bytes(b"two")
    with pytest.raises(UserError, match="has a checkpoint of the SHA-256"):
        open_table(tmp_path / "t", None)


def test_a_folder_of_something_else_and_a_table_that_is_not_there_are_refused(tmp_path, config_of):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "file").touch()
    with pytest.raises(UserError, match="holds no table"):
        open_table(tmp_path / "t", config_of())
    with pytest.raises(UserError, match="no table here"):
        open_table(tmp_path / "none", None)


def test_failures_are_forgotten_to_try_again(table_of, fabricate):
    table = table_of(seeds=2)
    (cell,) = cells_of(table.config, table.folder)
    fabricate(cell.runs(None, 1)[0], reason="broken")
    fabricate(cell.runs(None, 2)[0], 0.5)
    assert forget_failures(table.folder) == 1
    assert [cell.runs(None, seed)[0].outcome().status for seed in (1, 2)] == ["open", "finished"]


def test_a_table_that_another_process_is_just_beginning_is_gone_on_with(tmp_path, config_of, monkeypatch):
    folder = tmp_path / "t"
    folder.mkdir()
    (folder / ".table.yaml.7.tmp").touch()
    listed = Path.iterdir

    def begun_meanwhile(path):
        monkeypatch.setattr(Path, "iterdir", listed)
        save_config(complete(config_of()), folder / "table.yaml")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", begun_meanwhile)
    assert open_table(folder, config_of()).config.seeds == config_of().seeds
