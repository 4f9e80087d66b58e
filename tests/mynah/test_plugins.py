"""Which plugins are found, how they are described and imported, and that a broken one hides no other."""

import sys
from pathlib import Path

import pytest

import mynah
from mynah import plugins
from mynah.plugins import Plugin, describe_plugins, find_plugins, get_plugin, import_plugin
from mynah.utility.errors import UserError
from mynah.utility.experiments import shipped

EXPERT = '"""The task {name}.\n\nMore words."""\n'


def write(folder: Path, **files: str) -> Path:
    """A folder with the Python files, given as name=text."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository with two upstream folders, of one and two names, and one downstream folder."""
    root = tmp_path / "repository"
    write(
        root / "upstream" / "solo",
        expert="",
        hubconf='def solo(ckpt=None):\n    """One model.\n\n    More."""\n',
    )
    hub = "import os\ndependencies = []\ndef mel(): pass\ndef _hidden(): pass\n"
    hub += 'def fbank():\n    """Filters."""\n'
    hub += "    def inner(): pass\nclass Other:\n    def method(self): pass\n"
    write(root / "upstream" / "base", expert="", hubconf=hub)
    write(root / "upstream" / "unfinished", expert="")
    write(root / "downstream" / "speaker", expert=EXPERT.format(name="speaker"))
    write(root / "downstream" / "notes")
    monkeypatch.setattr(mynah, "ROOT", root)
    monkeypatch.setattr(shipped, "WEIGHTS", root / "weights")
    return root


@pytest.fixture
def import_path(monkeypatch):
    """Forgets, after the test, the plugins that it imported and where it looked for them."""
    from mynah import downstream, upstream

    before = set(sys.modules)
    for package in (upstream, downstream):
        monkeypatch.setattr(package, "__path__", list(package.__path__))
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("mynah.upstream.plugin_", "mynah.downstream.plugin_")):
            del sys.modules[name]


def test_upstream_names_are_the_public_functions_of_hubconf(repository):
    plugins = find_plugins("upstream")
    assert list(plugins) == ["fbank", "mel", "solo"]
    base = repository / "upstream" / "base"
    assert plugins["fbank"] == Plugin("upstream", "fbank", base, "Filters.", "mynah.upstream.base")
    assert plugins["mel"] == Plugin("upstream", "mel", base, "(no description)", "mynah.upstream.base")
    assert plugins["solo"].description == "One model."


def test_downstream_names_are_the_folders_with_an_expert(repository):
    folder = repository / "downstream" / "speaker"
    assert find_plugins("downstream") == {
        "speaker": Plugin("downstream", "speaker", folder, "The task speaker.", "mynah.downstream.speaker")
    }


def test_plugin_paths_add_to_the_repository_even_when_given_twice(repository, tmp_path):
    write(tmp_path / "mine" / "downstream" / "accent", expert=EXPERT.format(name="accent"))
    paths = [tmp_path / "mine", tmp_path / "mine" / ".." / "mine", repository]
    assert list(find_plugins("downstream", paths)) == ["accent", "speaker"]
    assert list(find_plugins("upstream", paths)) == ["fbank", "mel", "solo"]


def test_plugin_path_must_be_a_folder_of_plugins(repository, tmp_path):
    with pytest.raises(UserError, match=r"plugin path .*nowhere does not exist; expected a folder that holds"):
        find_plugins("upstream", [tmp_path / "nowhere"])
    task = write(tmp_path / "mine" / "downstream" / "accent", expert="")
    for given in (task, task.parent):
        with pytest.raises(UserError, match=f"holds neither upstream/ nor downstream/.*; give {task.parents[1]}$"):
            find_plugins("upstream", [given])


def test_a_name_found_twice_names_both_folders(repository, tmp_path):
    same_folder = write(tmp_path / "one" / "upstream" / "base", expert="", hubconf="def other(): pass")
    same_name = write(tmp_path / "two" / "upstream" / "mine", expert="", hubconf="def mel(): pass")
    for folder, name in ((same_folder, "base"), (same_name, "mel")):
        with pytest.raises(UserError) as caught:
            find_plugins("upstream", [folder.parents[1]])
        for part in (repr(name), str(folder), str(repository / "upstream" / "base")):
            assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("x = (\n", "hubconf.py, line 1: '(' was never closed"), ("x = 1", "hubconf.py has no public function")],
)
def test_a_broken_plugin_is_described_and_hides_no_other(repository, text, reason):
    write(repository / "upstream" / "broken", expert="", hubconf=text)
    plugins = find_plugins("upstream")
    assert list(plugins) == ["broken", "fbank", "mel", "solo"]
    assert plugins["broken"].description == f"cannot be read: {reason}"
    with pytest.raises(UserError, match="broken cannot be read: hubconf"):
        get_plugin("upstream", "nothing_like_it")
    with pytest.raises(UserError, match="expected a name, got None"):
        get_plugin("upstream", None)


def test_a_file_that_is_not_text_is_described_as_unreadable(repository):
    (write(repository / "downstream" / "binary") / "expert.py").write_bytes(b"\x00\xff")
    plugins = find_plugins("downstream")
    assert plugins["binary"].description.startswith("cannot be read: expert.py")
    assert "speaker" in plugins


def test_an_installed_package_that_is_broken_hides_no_plugin(repository, tmp_path, monkeypatch):
    for name, text in {
        "raising": 'raise RuntimeError("no\\nluck")',
        "unfinished": "def",
        "needy": "import nowhere",
    }.items():
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text(text)
    metadata = tmp_path / "site" / "three-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: three\nVersion: 1.0\n")
    points = "".join(f"{name} = {name}.task\n" for name in ("raising", "unfinished", "needy", "absent"))
    (metadata / "entry_points.txt").write_text(f"[mynah.downstream]\n{points}")
    monkeypatch.syspath_prepend(tmp_path / "site")
    listing = describe_plugins()
    assert "solo" in listing and "RuntimeError: no luck" in listing and "SyntaxError" in listing
    assert "'nowhere'" in listing and "No module named 'absent'" in listing
    with pytest.raises(UserError, match="no luck"):
        import_plugin(get_plugin("downstream", "raising"), "expert")


def test_unknown_name_is_told_with_the_possible_and_the_nearest(repository):
    with pytest.raises(UserError) as caught:
        get_plugin("upstream", "fbnk")
    assert str(caught.value) == (
        "unknown upstream 'fbnk'; available: fbank, mel, solo; did you mean fbank?; "
        "your own is found below DIR/upstream with --plugin-path DIR, in Python plugin_paths=[DIR], or "
        "MYNAH_PLUGIN_PATH=DIR"
    )
    assert get_plugin("upstream", "mel").folder.name == "base"


def test_unfinished_folder_is_told_what_it_lacks(repository):
    with pytest.raises(UserError, match=r"unfinished is no upstream because it has no hubconf\.py"):
        get_plugin("upstream", "unfinished")


def test_listing_has_a_line_for_each_plugin(repository):
    assert describe_plugins([]).splitlines() == [
        "upstream (-u):",
        "  fbank    Filters.",
        "  mel      (no description)",
        "  solo     One model.",
        "downstream (-d):",
        "  speaker  The task speaker.",
        "weights that come with Mynah (-u UPSTREAM -k NAME):",
        "  none",
    ]
    (repository / "weights").mkdir()
    for name in ("solo-small", "solo-big_2", "mel-a-b", "README", "solo-", "-small", "solo-Big", "solo-a.b"):
        (repository / "weights" / f"{name}.safetensors").touch()
    (repository / "weights" / "solo-card.md").touch()
    assert describe_plugins([]).splitlines()[-2:] == ["  mel      a-b", "  solo     big_2, small"]


def test_listing_runs_no_plugin_code(repository):
    write(repository / "downstream" / "loud", expert='"""Loud."""\nraise SystemExit("was run")')
    assert "Loud." in describe_plugins([])


def outside(tmp_path: Path, name: str, **files: str) -> Plugin:
    folder = write(tmp_path / name / "downstream" / f"plugin_{name}", **files)
    return get_plugin("downstream", folder.name, [folder.parents[1]])


def test_outside_plugin_imports_its_own_modules_and_the_repository_s(tmp_path, import_path):
    expert = "from mynah.utility.errors import UserError\nfrom .model import SIZE\n"
    expert += "import mynah.downstream.plugin_good.model as m\n"
    plugin = outside(tmp_path, "good", expert=expert, model="SIZE = 3")
    module = import_plugin(plugin, "expert")
    assert module.__name__ == "mynah.downstream.plugin_good.expert"
    assert module.SIZE == 3 and module.UserError is UserError
    assert import_plugin(plugin, "model") is module.m


def test_own_error_of_a_plugin_is_told_with_its_place(tmp_path, import_path):
    model = "def build():\n    return {}['size']\nbuild()\n"
    plugin = outside(tmp_path, "raises", expert="\nfrom .model import build\n", model=model)
    with pytest.raises(UserError) as caught:
        import_plugin(plugin, "expert")
    assert str(caught.value) == (
        f"downstream 'plugin_raises' could not be imported: KeyError: 'size' ({plugin.folder / 'model.py'}:2)"
    )
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("name", "expert", "message"),
    [
        (
            "package",
            "import no_such_package.part",
            r"needs the package 'no_such_package', .*pip install no_such_package",
        ),
        (
            "sibling",
            "from .modle import x",
            r"ModuleNotFoundError: No module named 'mynah.downstream.plugin_sibling.modle'",
        ),
        ("part", "import json.no_such_part", r"ModuleNotFoundError: No module named 'json.no_such_part'"),
        ("name", "from json import no_such_name", r"ImportError: cannot import name 'no_such_name'"),
        ("syntax", "def f(:\n", r"SyntaxError: .* \(.*plugin_syntax.expert\.py:1\)"),
    ],
)
def test_failed_import_is_a_user_error_that_says_why(tmp_path, import_path, name, expert, message):
    plugin = outside(tmp_path, name, expert=expert)
    with pytest.raises(UserError, match=f"^downstream 'plugin_{name}' .*{message}") as caught:
        import_plugin(plugin, "expert")
    assert "expert.py:1)" in str(caught.value)


def test_missing_module_of_a_plugin_is_named(tmp_path, import_path):
    plugin = outside(tmp_path, "small", expert="")
    with pytest.raises(UserError, match=r"has no dataset\.py; expected it in .*plugin_small"):
        import_plugin(plugin, "dataset")


def test_plugins_of_this_repository_import():
    """Guards the layout: every plugin offered is importable as KIND.FOLDER.expert."""
    for kind in plugins.KINDS:
        for plugin in find_plugins(kind).values():
            assert not plugin.description.startswith("cannot be read")
            module = import_plugin(plugin, "expert")
            assert module.__name__ == f"mynah.{kind}.{plugin.folder.name}.expert"
