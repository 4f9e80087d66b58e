"""Recipes: the configuration files of a plugin, chosen by name (`-c small`)."""

from pathlib import Path

from mynah.utility.configuration.sections import nearest
from mynah.utility.configuration.yaml_text import read_yaml_file
from mynah.utility.errors import UserError

BASE, DEMO = "base", "demo"


def find_recipe(given: str | Path | None, base: Path) -> tuple[Path, bool]:
    """The file that -c names, and whether its section `demo` is to be merged over it.

    given: a file; or the name of one beside the plugin's own configuration, `base`, without ".yaml"; or "base" or
    "demo"; None for the base. Raises UserError with all names for another one; a file that is missing is for
    whoever reads it.
    """
    if given is None or Path(given).is_file() or not is_name(given):
        return Path(given or base), False
    name = str(given)
    recipes = recipes_beside(base)
    if name in recipes:
        return recipes[name], name == DEMO
    near = nearest(name, recipes)
    hint = f"; did you mean {near}?" if near else ""
    raise UserError(
        f"-c {name}: neither a file nor a recipe of {base.parent.name}; its recipes are {', '.join(recipes)}{hint}"
    )


def recipes_beside(base: Path) -> dict[str, Path]:
    """{name: file}: "base", those beside it, and "demo" where the base has such a section."""
    others = {path.stem: path for path in sorted(base.parent.glob("*.yaml")) if path != base}
    if not base.is_file():
        return others
    demo = {DEMO: base} if DEMO in read_yaml_file(base)[0] else {}
    return {BASE: base, **others, **demo}


def is_name(given: str | Path) -> bool:
    """Whether it can be the name of a recipe: no folder, no ending."""
    return Path(given).name == str(given) and not Path(given).suffix
