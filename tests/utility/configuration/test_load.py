"""What a configuration accepts, how its sources combine, and what a mistake is told."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from mynah import ROOT
from mynah.utility.configuration.load import from_plain, load_config, load_recipe, save_config, to_plain
from mynah.utility.configuration.problems import validate
from mynah.utility.configuration.sections import Section, one_of, rules
from mynah.utility.errors import UserError


class Block(Section):
    size: int
    act: Annotated[str, one_of(["gelu", "relu"])] = "gelu"


class Model(Section):
    hidden_size: int = Field(768, gt=0)
    dropout: float = Field(0.0, ge=0, le=1)
    note: str | None = None
    blocks: list[Block] = Field(default_factory=list)
    extra: Block | None = None


class Optimizer(Section):
    lr: float
    name: str = "adamw"
    clip: int | str | None = None


class Data(Section):
    file_path: dict[str, str] = Field(default_factory=dict)
    max_timestep: int | None = None
    trim: bool = False


class Config(Section):
    model: Model = Field(default_factory=Model)
    optimizer: Optimizer
    datarc: Data = Field(default_factory=Data)
    trainer: dict[str, Any] = Field(default_factory=dict)
    shape: list[int] = Field(default_factory=list)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads YAML texts, written to a.yaml, b.yaml, ... in the current folder, with overrides."""
    monkeypatch.chdir(tmp_path)

    def load(*texts, overrides=(), demo=False):
        files = [tmp_path / f"{'abc'[index]}.yaml" for index in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text)
        return load_config(Config, files=files, overrides=overrides, demo=demo)

    return load


@pytest.fixture
def complaint(load):
    """The message of the UserError that loading ends in."""

    def complaint(*args, **kwargs):
        with pytest.raises(UserError) as caught:
            load(*args, **kwargs)
        return str(caught.value)

    return complaint


GOOD = "optimizer: {lr: 1e-4}\n"


def test_result_is_the_dataclass_with_defaults_filled_in(load):
    config = load(GOOD)
    assert isinstance(config, Config) and isinstance(config.model, Model)
    assert config == Config(optimizer=Optimizer(lr=0.0001))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E3", 5000.0),
        (".5", 0.5),
        ("3", 3.0),
        ("'1e-4'", 1e-4),
        ("-1.5e+2", -150.0),
        ("1.", 1.0),
    ],
)
def test_floats_as_people_write_them(load, text, value):
    from_file, from_override = (
        load(f"optimizer: {{lr: {text}}}"),
        load(GOOD, overrides=[f"optimizer.lr={text}"]),
    )
    for config in (from_file, from_override):
        assert config.optimizer.lr == value and type(config.optimizer.lr) is float


def test_whole_numbers_may_be_written_as_floats(load):
    config = load(GOOD, overrides=["model.hidden_size=1e3"])
    assert config.model.hidden_size == 1000 and type(config.model.hidden_size) is int


def test_numbers_in_an_open_section_are_numbers_and_times_are_text(load):
    config = load(GOOD + "trainer: {lr: 1e-4, max_time: 10:00:00:00, date: 2024-01-01, deep: [1, {a: null}]}")
    assert config.trainer == {
        "lr": 0.0001,
        "max_time": "10:00:00:00",
        "date": "2024-01-01",
        "deep": [1, {"a": None}],
    }


def test_later_files_win_and_overrides_win_over_files(load):
    config = load(
        GOOD + "model: {hidden_size: 1, dropout: 0.1, note: a}",
        "model: {hidden_size: 2, dropout: 0.2}",
        overrides=["model.hidden_size=3", "model.hidden_size=4"],
    )
    assert (config.model.hidden_size, config.model.dropout, config.model.note) == (4, 0.2, "a")


def test_a_section_override_changes_only_what_it_names(load):
    config = load(GOOD + "model: {hidden_size: 8}", overrides=["model={dropout: 0.5, extra: {size: 2}}"])
    assert config.model == Model(hidden_size=8, dropout=0.5, extra=Block(size=2))


def test_override_of_one_entry_adds_to_a_mapping(load):
    config = load(GOOD + "datarc: {file_path: {a: /x}}", overrides=["datarc.file_path.b=/y=1?k=v"])
    assert config.datarc.file_path == {"a": "/x", "b": "/y=1?k=v"}


@pytest.mark.parametrize("given", ["{b: /y}", "{}"])
def test_override_of_a_mapping_replaces_it(load, given):
    config = load(GOOD + "datarc: {file_path: {a: /x}}", overrides=[f"datarc.file_path={given}"])
    assert config.datarc.file_path == yaml.safe_load(given)


def test_files_merge_mappings_and_replace_lists(load):
    config = load(GOOD + "datarc: {file_path: {a: /x}}\nshape: [1, 2, 3]", "datarc: {file_path: {b: /y}}\nshape: [4]")
    assert config.datarc.file_path == {"a": "/x", "b": "/y"}
    assert config.shape == [4]


def test_open_section_takes_nested_overrides(load):
    config = load(GOOD + "trainer: {max_steps: 5}", overrides=["trainer.devices=[0, 1]", "trainer.strategy.kind=ddp"])
    assert config.trainer == {"max_steps": 5, "devices": [0, 1], "strategy": {"kind": "ddp"}}


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("007", "007"),
        ("1e-4", "1e-4"),
        ("a #b", "a #b"),
        ("'x y'", "x y"),
        ("@home: 50%", "@home: 50%"),
        ("yes", "yes"),
    ],
)
def test_text_on_the_command_line_stays_as_typed(load, typed, text):
    config = load(GOOD, overrides=[f"model.note={typed}", f"datarc.file_path.a={typed}"])
    assert config.model.note == text and config.datarc.file_path == {"a": text}


def test_null_unsets_what_may_be_unset(load):
    text = GOOD + "model: {note: a, extra: {size: 3}}\ndatarc: {max_timestep: 5}"
    config = load(text, overrides=["model.note=null", "model.extra=null", "datarc.max_timestep=null"])
    assert config.model.note is None and config.model.extra is None and config.datarc.max_timestep is None


def test_union_takes_each_of_its_types(load, complaint):
    assert load(GOOD, overrides=["optimizer.clip=3"]).optimizer.clip == 3
    assert load(GOOD, overrides=["optimizer.clip=norm"]).optimizer.clip == "norm"
    assert "optimizer.clip: expected a whole number or text, got 1.5" in complaint(
        GOOD, overrides=["optimizer.clip=1.5"]
    )


def test_demo_section_is_merged_only_for_the_demo(load):
    text = GOOD + "model: {hidden_size: 8, note: a}\ndemo:\n  model: {hidden_size: 2}\n"
    assert load(text).model.hidden_size == 8
    demo = load(text, demo=True)
    assert (demo.model.hidden_size, demo.model.note) == (2, "a")
    assert load(text, demo=True, overrides=["model.hidden_size=3"]).model.hidden_size == 3
    assert load(text, "model: {hidden_size: 4}", demo=True).model.hidden_size == 4


@pytest.mark.parametrize("demo", [False, True])
def test_demo_section_is_checked_in_any_case(complaint, demo):
    message = complaint(GOOD + "demo:\n  model: {hiden_size: 2}\n  optimizer: {lr: fast}\n", demo=demo)
    assert "demo.model.hiden_size: unknown key; did you mean model.hidden_size?  [a.yaml, line 3]" in message
    assert "demo.optimizer.lr: expected a number, got 'fast'  [a.yaml, line 4]" in message


def test_all_problems_are_told_at_once_each_with_its_source(complaint):
    message = complaint(
        "optimizer:\n  lr: fast\nmodel:\n  dropout: 2\n  blocks: [{act: gleu, size: 1}]\n",
        "datarc: {trim: 1}",
        overrides=["model.hiden_size=3", "shape=[1]"],
    )
    assert message.splitlines() == [
        "configuration problems in a.yaml, b.yaml, -o model.hiden_size=3:",
        "  model.dropout: expected from 0 to 1, got 2  [a.yaml, line 4]",
        "  model.blocks[0].act: 'gleu' is not one of gelu, relu (did you mean gelu?)  [a.yaml, line 5]",
        "  model.hiden_size: unknown key; did you mean model.hidden_size?  [-o model.hiden_size=3]",
        "  optimizer.lr: expected a number, got 'fast'  [a.yaml, line 2]",
        "  datarc.trim: expected true or false, got 1  [b.yaml, line 1]",
    ]


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("model.hidden_size=true", "model.hidden_size: expected a whole number, got true"),
        ("model.dropout=false", "model.dropout: expected a number, got false"),
        ("model.dropout=.nan", "model.dropout: expected a number, got nan"),
        ("model.hidden_size=2.5", "model.hidden_size: expected a whole number, got 2.5"),
        ("model.hidden_size='3'", "model.hidden_size: expected a whole number, got '3'"),
        ("model.hidden_size=null", "model.hidden_size: expected a whole number, got null"),
        ("model.hidden_size=", "model.hidden_size: expected a whole number, got null"),
        ("optimizer.name=null", "optimizer.name: expected text, got null"),
        ("datarc.trim=yes", "datarc.trim: expected true or false, got 'yes'"),
        ("datarc.file_path=/x", "datarc.file_path: expected a mapping such as {name: value}, got '/x'"),
        ("datarc.file_path=null", "datarc.file_path: expected a mapping such as {name: value}, got null"),
        (
            "datarc.file_path={a: 7}",
            "datarc.file_path.a: expected text, got 7; put it in quotes if text is meant",
        ),
        ("datarc.file_path={7: a}", "datarc.file_path: its key 7 is not text; put the key in quotes"),
        ("datarc.file_path.a.b=/x", "datarc.file_path.a: expected text, got a mapping {'b': '/x'}"),
        ("shape=3", "shape: expected a list such as [a, b], got 3"),
        ("shape=[1, a]", "shape[1]: expected a whole number, got 'a'"),
        ("model.blocks=[{size: x}]", "model.blocks[0].size: expected a whole number, got 'x'"),
        ("model.blocks=[{}]", "model.blocks[0].size: must be set"),
        (
            "model=3",
            "model: expected a section with the keys hidden_size, dropout, note, blocks, extra, got 3",
        ),
        (
            "model=null",
            "model: expected a section with the keys hidden_size, dropout, note, blocks, extra, got null",
        ),
        ("trainer=gpu", "trainer: expected a mapping such as {name: value}, got 'gpu'"),
        ("modle.hidden_size=3", "modle.hidden_size: unknown key; did you mean model.hidden_size?"),
        ("modle={hidden_size: 3, dropout: 0}", "modle: unknown key; did you mean model?"),
        ("lr=3", "lr: unknown key; did you mean optimizer.lr?"),
        ("model.lr=3", "model.lr: unknown key; did you mean optimizer.lr?"),
        ("model.extra.sise=3", "model.extra.sise: unknown key; did you mean model.extra.size?"),
        (
            "model.zzz=3",
            "model.zzz: unknown key; possible keys of model: hidden_size, dropout, note, blocks, extra",
        ),
        ("zzz=3", "zzz: unknown key; possible keys: model, optimizer, datarc, trainer, shape"),
        ("lr", "expected KEY=VALUE, such as optimizer.lr=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("model..x=3", "expected KEY=VALUE"),
        ("shape=[1", "shape: YAML syntax error at line 1, column 3: expected ',' or ']'"),
    ],
)
def test_a_wrong_override_is_told_with_what_was_expected(complaint, override, problem):
    heading, line, *more = complaint(GOOD, overrides=[override]).splitlines()
    assert heading == f"configuration problems in -o {override}:" or "must be set" in problem
    assert problem in line
    assert not more


def test_dollars_and_braces_are_text(load):
    assert load(GOOD, overrides=["optimizer.name=${a}"]).optimizer.name == "${a}"


def test_what_must_be_set_is_told_with_how_to_set_it(complaint):
    assert complaint("model: {extra: {act: relu}}").splitlines() == [
        "configuration problems in a.yaml:",
        "  model.extra.size: must be set; give it in the YAML file or with -o model.extra.size=VALUE",
        "  optimizer.lr: must be set; give it in the YAML file or with -o optimizer.lr=VALUE",
    ]


def test_impossible_values_elsewhere_are_told_although_something_is_missing(complaint):
    message = complaint("model: {hidden_size: -1}")
    assert "model.hidden_size: expected more than 0, got -1  [a.yaml, line 1]" in message
    assert "optimizer.lr: must be set" in message


def test_what_is_wrong_with_a_list_is_told_of_who_gave_it_last(tmp_path):
    class Grid(Section):
        shape: list[int]

        @rules
        def _is_not_short(self):
            if len(self.shape) < 3:
                yield "shape: expected three or more"

    file = tmp_path / "a.yaml"
    file.write_text("shape: [1, 2, 3, 4]\n")
    with pytest.raises(UserError, match=r"problems in -o shape=\[5\]:\n  shape: expected three or more$"):
        load_config(Grid, files=[file], overrides=["shape=[5]"])


def test_a_key_with_two_values_is_told_once_although_the_demo_is_tried_too(tmp_path, caplog):
    file = tmp_path / "a.yaml"
    file.write_text(GOOD + "demo: {model: {hidden_size: 2}}\n")
    values = [f"model.hidden_size={size}" for size in (3, 4, 4)]
    load_recipe(Config, files=[file], overrides=values, has_data=lambda config: False)
    assert caplog.text.count("model.hidden_size is given twice: 3, then 4") == 1


def test_a_value_of_the_wrong_type_is_not_also_called_missing(complaint):
    assert len(complaint("optimizer: {lr: fast}").splitlines()) == 2


def test_an_impossible_default_is_said_to_be_one():
    class Bad(Section):
        size: int = Field(-1, gt=0)

    with pytest.raises(UserError, match=r"size: expected more than 0, got -1  \[by default\]"):
        load_config(Bad, files=[], overrides=[])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("# only words\n", "is empty"),
        ("- a\n- b", "expected a mapping (lines such as 'key: value'), got a list ['a', 'b']"),
        ("just words", "expected a mapping (lines such as 'key: value'), got 'just words'"),
        ("a: 1\nb: [1,\nc", "YAML syntax error at line 3, column 2"),
        ("a:\n\t- b", "YAML syntax error at line 2, column 1: found character '\\t'"),
        ("a: !!python/object:os.system {}", "YAML syntax error at line 1, column 4"),
        ("model: {dropout: 1}\nmodel: {dropout: 2}", "model: given twice, at lines 1 and 2; keep one"),
        ("shape: &a [*a]", "shape[0]: refers to itself"),
        ("a: !!timestamp foo", "not valid YAML"),
        ('a: !!int ""', "not valid YAML"),
        ("a: !!bool x", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_told_so(complaint, text, problem):
    message = complaint(text)
    assert message.startswith("configuration problems in a.yaml:\n  ") and problem in message


def test_files_that_cannot_be_read_are_all_named(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError) as caught:
        load_config(Config, files=[tmp_path / "none.yaml", tmp_path, binary], overrides=["lr=1"])
    message = str(caught.value)
    assert f"no such file; check the path  [{tmp_path / 'none.yaml'}]" in message
    assert f"is a folder; expected a YAML file  [{tmp_path}]" in message
    assert f"is not UTF-8 text; expected a YAML file  [{binary}]" in message
    assert "lr: unknown key" in message and "must be set" not in message


def test_a_file_without_permission_is_told_so(complaint, monkeypatch):
    def denied(self, *args, **kwargs):  # not by chmod: root may read every file
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    assert "cannot be read: permission denied" in complaint(GOOD)


def test_plain_form_holds_only_plain_values_and_comes_back(load):
    config = load(GOOD + "model: {blocks: [{size: 3}], extra: {size: 4}}\ntrainer: {a: [1, {b: x}]}")
    plain = to_plain(config)
    assert plain["model"]["blocks"] == [{"size": 3, "act": "gelu"}] and plain["optimizer"]["clip"] is None
    assert from_plain(Config, plain, "x.ckpt") == config
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    with pytest.raises(TypeError, match="not a configuration value"):
        to_plain({"a": object()})


def test_plain_form_is_checked_and_its_source_named():
    with pytest.raises(UserError) as caught:
        from_plain(Config, {"modl": {}, "optimizer": {"lr": "x"}}, "x.ckpt")
    assert str(caught.value).splitlines() == [
        "configuration problems in x.ckpt:",
        "  optimizer.lr: expected a number, got 'x'",
        "  modl: unknown key; did you mean model?",
    ]
    with pytest.raises(UserError, match=r"problems in x\.ckpt:\n  expected a mapping, got a list"):
        from_plain(Config, [], "x.ckpt")


def test_saved_configuration_loads_as_the_same(load, tmp_path):
    odd = ["007", "1e-4", "yes", "null", "a: b", "10:00:00", "ümlaut", "two\nlines", "", "1_0"]
    config = load(GOOD)
    config.datarc.file_path = {f"k{index}": text for index, text in enumerate(odd)}
    config.trainer = {"list": odd, "lr": 1e-7, "none": None, "yes": True}
    config.optimizer.lr = 1e-5
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Config, files=[tmp_path / "saved.yaml"]) == config


@pytest.mark.parametrize("step", ["open", "replace"])
def test_failed_save_leaves_the_earlier_file_and_nothing_else(load, tmp_path, monkeypatch, step):
    folder = tmp_path / "result"
    folder.mkdir()
    config = load(GOOD)
    save_config(config, folder / "saved.yaml")
    before = (folder / "saved.yaml").read_bytes()

    def disk_full(self, *args, **kwargs):
        self.touch()
        raise OSError(28, "No space left on device")

    config.model.hidden_size = 1
    with monkeypatch.context() as patched:
        patched.setattr(Path, step, disk_full)
        with pytest.raises(UserError, match=r"saved\.yaml: could not be written \(No space left"):
            save_config(config, folder / "saved.yaml")
    assert [path.name for path in folder.iterdir()] == ["saved.yaml"]
    assert (folder / "saved.yaml").read_bytes() == before


class Bounds(Section):
    above: float = Field(1.0, gt=0)
    least: int | None = Field(0, ge=0)
    most: float = Field(0.0, le=1)
    below: float = Field(0.0, lt=1)
    both: float = Field(0.5, ge=0, le=1)
    pooling: Annotated[str, one_of({"mean": 1, "max": 2})] = "mean"
    pairs: list[Annotated[float, Field(ge=0, lt=1)]] = Field(default_factory=list)

    @rules
    def _agree(self):
        yield f"most: expected at most above ({self.above})" if self.most > self.above else None
        yield "the sum of below and both is more than 1" if self.below + self.both > 1 else None


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({}, []),
        ({"least": None, "both": 1, "above": 1e-9, "most": -5}, []),
        ({"above": 0}, [("above", "expected more than 0.0, got 0")]),
        ({"least": -1}, [("least", "expected 0 or more, got -1")]),
        ({"most": 2}, [("most", "expected 1.0 or less, got 2")]),
        ({"below": 1.0}, [("below", "expected less than 1.0, got 1.0")]),
        ({"both": -0.1}, [("both", "expected from 0 to 1, got -0.1")]),
        ({"both": float("inf")}, [("both", "expected a number, got inf")]),
        ({"pooling": "maen"}, [("pooling", "'maen' is not one of mean, max (did you mean mean?)")]),
        ({"pairs": [0, 1]}, [("pairs[1]", "expected less than 1.0, got 1")]),
        ({"above": 0.5, "most": 1}, [("most", "expected at most above (0.5)")]),
        (
            {"below": 0.9, "above": 0, "least": -1},
            [
                ("above", "expected more than 0.0, got 0"),
                ("least", "expected 0 or more, got -1"),
                ("", "the sum of below and both is more than 1"),
            ],
        ),
        (
            {"below": 0.9, "most": 1, "above": 0.5},
            [("most", "expected at most above (0.5)"), ("", "the sum of below and both is more than 1")],
        ),
    ],
)
def test_bounds_choices_and_rules_are_told_in_words(given, problems):
    assert validate(Bounds, given)[1] == problems


class Steps(Section):
    data: str = ""
    every: int = 8
    accumulate: int = 4

    @rules
    def _whole_steps(self):
        if self.every % self.accumulate:
            yield f"every: must be a multiple of {self.accumulate}"


def test_an_override_that_only_the_demo_allows_is_refused_only_where_there_is_data(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("every: 8\ndemo: {accumulate: 1}\n")

    def load(*overrides):
        return load_recipe(Steps, files=[file], overrides=overrides, has_data=lambda config: bool(config.data))

    assert (load("every=10").every, load("every=10").accumulate) == (10, 1)
    assert load("data=x").accumulate == 4
    for wrong in (["every=10", "data=x"], ["every=10", "accumulate=3"]):
        with pytest.raises(UserError, match="every: must be a multiple of"):
            load(*wrong)
    with pytest.raises(UserError, match="evry: unknown key"):
        load("evry=10")


def test_a_section_is_checked_when_it_is_built_or_changed_in_python():
    assert Bounds().replace(above=3).above == 3
    for build in (lambda: Bounds(above=-1), lambda: Bounds().replace(above=-1), lambda: Bounds(abov=1)):
        with pytest.raises(ValueError, match="abov"):
            build()


def test_a_bomb_of_aliases_and_a_huge_file_are_refused_at_once(complaint):
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for one, two in zip("abcdefghij", "bcdefghijk", strict=True):
        bomb += f"{two}: &{two} [{', '.join([f'*{one}'] * 10)}]\n"
    started = time.monotonic()
    assert "has more than 100000 values" in complaint(bomb)
    assert "has 2000001 characters" in complaint("#" * 2_000_001)
    assert time.monotonic() - started < 20


def test_configuration_needs_neither_torch_nor_lightning():
    code = "import sys, mynah.utility.configuration.load, mynah.plugins\n"
    code += "print({'torch', 'lightning'} & set(sys.modules))"
    root = ROOT
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
