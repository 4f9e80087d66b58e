"""The metadata of the package, and the wheel: built, installed into an empty folder and used from another."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mynah
from mynah.plugins import EXTRAS
from mynah.upstream.aalbert import hubconf
from mynah.utility.experiments.checkpoint import make_metadata, without
from mynah.utility.experiments.exported import Exported, encode_export

tomllib = pytest.importorskip("tomllib", reason="reading pyproject.toml needs Python 3.11")
REPOSITORY = Path(__file__).parents[1]
if not (REPOSITORY / "hubconf.py").is_file():
    pytest.skip("the wheel is built from a clone", allow_module_level=True)
METADATA = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())


def name_of(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0]


def test_the_metadata_and_the_requirements_name_the_same():
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    required = sorted(line for line in lines if line and not line.startswith("#"))
    extras = METADATA["project"]["optional-dependencies"]
    assert sorted([*METADATA["project"]["dependencies"], *extras["video"]]) == required
    assert extras["all"] == ["mynah[video,hub]"]
    assert sorted(map(name_of, extras["video"])) == sorted({*EXTRAS["video"], "protobuf"})


def build_wheel(folder: Path) -> Path:
    """Needs hatchling, as pip does that builds it."""
    pytest.importorskip("hatchling", reason="hatchling is not installed; requirements-dev.txt names it")
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder that holds what the wheel holds, as `pip install --target` lays it out, and nothing of the clone."""
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    assert wheel.name.startswith(f"mynah-{mynah.__version__}-")
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return site


def test_the_wheel_holds_one_package_with_every_source_and_configuration(tmp_path):
    names = zipfile.ZipFile(build_wheel(tmp_path)).namelist()
    assert {name.partition("/")[0] for name in names} == {"mynah", f"mynah-{mynah.__version__}.dist-info"}
    tracked = subprocess.run(
        ["git", "ls-files", "mynah", "upstream", "downstream", "utility", "weights"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    ).stdout.split()
    expected = {name if name.startswith("mynah/") else f"mynah/{name}" for name in tracked}
    assert expected - {"mynah/on_path/mynah/__init__.py"} == {name for name in names if ".dist-info" not in name}


def run(installed: Path, folder: Path, *command: str) -> str:
    """Run an installed command in an empty folder; its output."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    program = [sys.executable, "-c", "import sys; from mynah.commands import main; sys.exit(main())", *command]
    done = subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout + done.stderr


def test_the_installed_command_pretrains_trains_evaluates_and_predicts(installed, tmp_path, tiny_pretraining, corpus):
    small = [*tiny_pretraining, "model.num_hidden_groups=1", "trainer.max_steps=2"]
    assert "aalbert" in run(installed, tmp_path, "pretrain", "--list")
    run(installed, tmp_path, "pretrain", "-n", "exp", "-u", "aalbert", "-o", *small)
    table = tmp_path / "speakers.csv"
    splits = ["train", "train", "train", "train", "dev", "test"]
    wavs = sorted(corpus.rglob("*.wav"))
    rows = [f"{path},{path.parts[-3]},{splits[index % 6]}" for index, path in enumerate(wavs)]
    table.write_text("\n".join(["path,label,split", *rows]) + "\n")
    plugin = tmp_path / "mine" / "downstream" / "mine"
    plugin.mkdir(parents=True)
    template = installed / "mynah" / "downstream" / "example"
    for name in ("__init__.py", "expert.py", "config.yaml"):
        (plugin / name).write_text((template / name).read_text())
    task = ["-d", "mine", "-u", "aalbert", "-k", "result/pretrain/exp", "--plugin-path", "mine"]
    task_options = [f"datarc.file_path={table}", "trainer.max_steps=2", "dataloader.num_workers=0"]
    run(installed, tmp_path, "downstream", "-n", "task", *task, "-o", *task_options)
    at = ["-e", "result/downstream/task", "--plugin-path", "mine"]
    assert (tmp_path / "result/downstream/task/metrics.json").is_file()
    run(installed, tmp_path, "downstream", "-m", "evaluate", *at)
    assert wavs[0].name in run(installed, tmp_path, "downstream", "-m", "inference", *at, "--input", str(wavs[0]))


def test_weights_in_the_installed_package_are_taken_by_their_name(installed, tmp_path):
    expert = hubconf.aalbert(random_weights=True, hidden_size=16, num_attention_heads=2, intermediate_size=16)
    plain = {**expert.build_arguments()["config"], "objective": None}
    weights = without(expert.state_dict(), "model.objective.")
    exported = Exported({}, make_metadata("pretrain", "aalbert", plain, step=3), {"data": {}})
    file = installed / "mynah" / "weights" / "aalbert-tiny.safetensors"
    file.write_bytes(encode_export(weights, exported))
    try:
        assert re.search(r"\n  aalbert +(small, )?tiny\n", run(installed, tmp_path, "pretrain", "--list"))
        code = "import mynah; print(mynah.load('aalbert', ckpt='tiny').hidden_size)"
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
    finally:
        file.unlink()
    assert done.stdout == "16\n", done.stderr
    assert f"loaded tiny ({file}, which comes with Mynah)" in done.stderr


def test_the_version_stands_in_one_place(installed):
    (metadata,) = installed.glob("mynah-*.dist-info/METADATA")
    assert f"\nVersion: {mynah.__version__}\n" in metadata.read_text()
