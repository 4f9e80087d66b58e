"""A table's configuration: from a file, from the command line, checked, complete."""

import pytest

from mynah.tables.config import DEFAULT_OPTIONS, TableConfig, complete, read_table
from mynah.utility.configuration.load import save_config
from mynah.utility.errors import UserError


def test_options_go_to_their_tasks_the_general_ones_first(config_of):
    config = config_of(
        tasks=["emodb:emotion", "emotion"],
        options=["emodb:datarc.fold=2", "trainer.max_steps=5"],
        vary=["emotion:datarc.fold=1,2"],
    )
    emodb, other = config.tasks
    assert emodb.options == [*DEFAULT_OPTIONS, "trainer.max_steps=5", "datarc.fold=2"] and emodb.varied == [""]
    assert other.options == [*DEFAULT_OPTIONS, "trainer.max_steps=5"] and other.varied == [
        "datarc.fold=1",
        "datarc.fold=2",
    ]


def test_the_last_of_several_values_of_a_key_counts(config_of):
    memory, disk = "features.cache=memory", DEFAULT_OPTIONS[0]
    config = config_of(tasks=["emodb:emotion", "emotion"], options=[memory, f"emodb:{disk}"])
    assert [column.options[-1] for column in config.tasks] == [disk, memory]
    assert complete(config) == config


def test_a_single_option_may_stand_alone(config_of):
    assert config_of(options="trainer.max_steps=5").tasks[0].options == [*DEFAULT_OPTIONS, "trainer.max_steps=5"]
    assert config_of(vary="emotion:datarc.fold=1,2").tasks[0].varied == ["datarc.fold=1", "datarc.fold=2"]


def test_a_whole_table_is_a_file_and_the_complete_one_reads_back(tmp_path):
    text = """
upstreams:
  - fbank
  - {label: odd, upstream: aalbert, checkpoint: "a@b.yaml"}
tasks: ["emodb:emotion", {task: emotion, options: [datarc.fold=3]}]
lrs: [1e-4, 1e-3]
seeds: 2
options: ["emodb:datarc.fold=2"]
"""
    (tmp_path / "t.yaml").write_text(text)
    config = read_table(tmp_path / "t.yaml", {"seeds": 3, "options": ["trainer.max_steps=7"]})
    assert [row.label for row in config.upstreams] == ["fbank", "odd"] and config.upstreams[1].config is None
    assert (config.lrs, config.seeds) == ([1e-4, 1e-3], 3)
    assert [column.options for column in config.tasks] == [
        [*DEFAULT_OPTIONS, "datarc.fold=2", "trainer.max_steps=7"],
        [*DEFAULT_OPTIONS, "datarc.fold=3", "trainer.max_steps=7"],
    ]
    save_config(config, tmp_path / "again.yaml")
    assert read_table(tmp_path / "again.yaml", {}) == config == complete(config)


def test_options_of_the_command_line_count_more_than_those_of_the_file(tmp_path):
    text = """
upstreams: [fbank]
tasks: ["a:emotion", {label: b, task: emotion, options: [trainer.max_steps=2000, datarc.fold=1]}]
options: [seed_of=1, trainer.max_steps=100]
"""
    (tmp_path / "t.yaml").write_text(text)
    asked = ["trainer.max_steps=10", "b:datarc.fold=2"]
    first, second = read_table(tmp_path / "t.yaml", {"options": asked}).tasks
    assert first.options == [*DEFAULT_OPTIONS, "seed_of=1", "trainer.max_steps=10"]
    assert second.options == [*DEFAULT_OPTIONS, "seed_of=1", "trainer.max_steps=10", "datarc.fold=2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"upstreams": [{"upstream": "fbank", "chekpoint": "x"}]}, "did you mean upstreams.0..checkpoint"),
        ({"upstreams": ["=x"]}, r"upstreams.0.: expected \[LABEL:\]UPSTREAM"),
        ({"upstreams": []}, "upstreams"),
        ({"seed": 3}, "did you mean seeds"),
        ({"seeds": 0}, "seeds: expected"),
        ({"lrs": [1e-3, -1.0]}, r"lrs.1.: expected more than 0"),
        ({"lrs": [1e-3, 0.001]}, "twice"),
        ({"sweep": "al"}, "did you mean all"),
        ({"options": ["emotoin:a=1"]}, "did you mean emotion"),
        ({"options": ["seed=3"]}, "--seeds"),
        ({"options": ["optimizer.lr=1"], "lrs": [1.0]}, "--lrs gives"),
        ({"options": ["datarc.fold=1"], "vary": ["datarc.fold=1,2"]}, "--vary"),
        ({"options": ["nonsense"]}, "expected KEY=VALUE"),
        ({"vary": ["emotion:datarc.fold=1"]}, "two values or more"),
        ({"vary": ["seed=1,2"]}, "--seeds"),
        ({"vary": ["datarc.file_path=/d/a/b,/d/c,/d/a-b"]}, "/d/a/b and /d/a-b would give folders of one name"),
        ({"vary": ["datarc.file_path=/d/A,/d/a"]}, "folders of one name"),
        ({"tasks": ["a:emotion", "b:emotion"], "vary": ["datarc.fold=1,2"]}, "several tasks"),
        ({"tasks": ["x:emotion", "x:emotion"]}, "given twice"),
        ({"tasks": ["x:emotion", "x:example"]}, "stands twice"),
        ({"upstreams": ["a b:fbank", "a-b:mel"]}, "folders of one name"),
        ({"upstreams": ["a|b:fbank"]}, "printable"),
        ({"upstreams": ["...:fbank"]}, "printable"),
    ],
)
def test_what_is_impossible_is_told(config_of, given, message):
    with pytest.raises(UserError, match=message):
        config_of(**given)


def test_every_field_has_a_default_or_is_required():
    assert {name for name, field in TableConfig.model_fields.items() if field.is_required()} == {"upstreams", "tasks"}
