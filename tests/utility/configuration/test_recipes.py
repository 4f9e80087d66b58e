"""Recipes by name, and files that are based on another."""

from pathlib import Path

import pytest
from pydantic import Field

from mynah.utility.configuration.load import load_config
from mynah.utility.configuration.options import options_of_file
from mynah.utility.configuration.recipes import find_recipe, recipes_beside
from mynah.utility.configuration.sections import Section
from mynah.utility.errors import UserError


class ModelConfig(Section):
    size: int = Field(1, gt=0)
    depth: int = 1


class Config(Section):
    model: ModelConfig = Field(default_factory=ModelConfig)
    steps: int = 1


@pytest.fixture
def base(tmp_path) -> Path:
    file = tmp_path / "mine" / "config.yaml"
    file.parent.mkdir()
    file.write_text("model: {size: 100, depth: 12}\nsteps: 9000\ndemo: {model: {size: 2}, steps: 10}\n")
    (file.parent / "small.yaml").write_text("base: config.yaml\nmodel: {size: 20}\n")
    (file.parent / "smaller.yaml").write_text("base: small.yaml\nsteps: 70\n")
    return file


def load(file: Path, **options) -> tuple[int, int, int]:
    config = load_config(Config, files=[file], **options)
    return config.model.size, config.model.depth, config.steps


def test_recipes_are_found_by_name(base):
    assert list(recipes_beside(base)) == ["base", "small", "smaller", "demo"]
    assert find_recipe(None, base) == find_recipe("base", base) == (base, False)
    assert find_recipe(Path("small"), base) == (base.parent / "small.yaml", False)
    assert find_recipe("demo", base) == (base, True)


def test_an_unknown_recipe_is_refused_with_all_names(base):
    with pytest.raises(UserError) as caught:
        find_recipe("smal", base)
    assert str(caught.value) == (
        "-c smal: neither a file nor a recipe of mine; its recipes are base, small, smaller, demo; "
        "did you mean small?"
    )


@pytest.mark.parametrize("given", ["nowhere.yaml", "nowhere/small", "./small", "/small"])
def test_what_looks_like_a_path_is_one(base, given):
    assert find_recipe(given, base) == (Path(given), False)


def test_an_existing_file_comes_before_a_recipe_and_a_folder_does_not(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert find_recipe("small", base)[0] == base.parent / "small.yaml"
    (tmp_path / "smaller").write_text("steps: 3\n")
    assert find_recipe("smaller", base)[0] == Path("smaller")


def test_a_plugin_without_a_file_of_its_own_or_a_demo_has_no_such_recipes(tmp_path):
    assert recipes_beside(tmp_path / "config.yaml") == {}
    (tmp_path / "config.yaml").write_text("steps: 3\n")
    assert list(recipes_beside(tmp_path / "config.yaml")) == ["base"]


def test_a_file_of_options_is_read_with_its_base(base):
    plain = {"model": {"size": 1, "depth": 2}}
    assert options_of_file(plain, base.parent / "smaller.yaml") == {"model": {"size": 20, "depth": 12}}
    loop = base.parent / "loop.yaml"
    loop.write_text("base: loop.yaml\nmodel: {size: 3}\n")
    with pytest.raises(UserError, match="base: expected the name of another YAML file"):
        options_of_file(plain, loop)


def test_a_file_says_only_what_differs_from_its_base(base):
    assert load(base) == (100, 12, 9000)
    assert load(base.parent / "small.yaml") == (20, 12, 9000)
    assert load(base.parent / "smaller.yaml") == (20, 12, 70)


def test_the_demo_comes_over_all_of_them(base):
    assert load(base.parent / "smaller.yaml", demo=True) == (2, 12, 10)
    (base.parent / "smaller.yaml").write_text("base: small.yaml\nsteps: 70\ndemo: {steps: 5}\n")
    assert load(base.parent / "smaller.yaml", demo=True) == (2, 12, 5)


def test_overrides_and_further_files_come_last_and_bring_no_base(base):
    small = base.parent / "small.yaml"
    more = base.parent / "more.yaml"
    more.write_text("base: config.yaml\nmodel: {depth: 3}\n")
    config = load_config(Config, files=[small, more], overrides=["steps=4"])
    assert (config.model.size, config.model.depth, config.steps) == (20, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: nowhere.yaml\n", r"nowhere\.yaml:?\n.*no such file"),
        ("base: [config.yaml]\n", "base: expected the name of another YAML file beside this one, got a list"),
        ("base: small.yaml\n", "base: expected the name of another YAML file beside this one, got 'small.yaml'"),
        ("base: round.yaml\n", r"round\.yaml(.|\n)*base: expected the name of another .* got 'small.yaml'"),
        ("base: config.yaml\nmodel: {siz: 3}\n", r"small\.yaml(.|\n)*model.siz: unknown key"),
        ("base: config.yaml\nmodel: {size: 0}\n", r"small\.yaml(.|\n)*model.size: expected more than 0"),
    ],
)
def test_mistakes_of_a_base_are_told(base, text, message):
    (base.parent / "round.yaml").write_text("base: small.yaml\n")
    (base.parent / "small.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load(base.parent / "small.yaml")
