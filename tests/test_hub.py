"""torch.hub.load from a local path, in processes of their own, as another project would do it."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from mynah.upstream.aalbert import hubconf
from mynah.utility.experiments.checkpoint import CARD, make_card, save_atomically

REPOSITORY = Path(__file__).parents[1]
NAMES = ["aalbert", "fbank", "frame_timm", "linear", "mel", "mfcc", "mockingjay", "spectrogram", "vidswin_albert"]
TINY = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}

TINY_VIDEO = {
    "num_frames": 2,
    "frame_size": 32,
    "swin.embed_dim": 8,
    "swin.depths": [1],
    "swin.num_heads": [1],
    **{f"albert.{key}": value for key, value in TINY.items()},
}
OPTIONS = {
    "aalbert": TINY,
    "mockingjay": {**TINY, "num_hidden_groups": 2},
    "vidswin_albert": TINY_VIDEO,
    "frame_timm": {"model_name": "resnet10t", "frame_size": 32},
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
    card = make_card("pretrain", "aalbert", expert.build_arguments()["config"], step=42)
    path = tmp_path_factory.mktemp("hub") / "tiny.ckpt"
    save_atomically({"state_dict": expert.state_dict(), CARD: card}, path)
    return path


def test_every_upstream_loads_and_nothing_of_training_is_imported(tmp_path, checkpoint):
    done = run(
        """
        heavy = ("lightning", "pytorch_lightning", "librosa", "tensorboard", "matplotlib", "pycocoevalcap")
        heavy += ("transformers", "sentencepiece.sentencepiece_model_pb2")
        before = list(sys.path)
        for name in sys.argv[2:]:
            options = OPTIONS.get(name, {})
            expert = load(name, **options)
            use(expert)
            expert.get_downsample_rates("hidden_states"), expert.build_arguments()
        use(load("aalbert", ckpt=sys.argv[1]))
        print([name for name in heavy if name in sys.modules], sys.path[1:] == before, sys.path[0])
        """,
        tmp_path,
        str(checkpoint),
        *NAMES,
    )
    assert done.stdout.strip() == f"[] True {REPOSITORY / 'mynah' / 'on_path'}"


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
        "truncated.ckpt": "not a readable checkpoint",
        "garbage.ckpt": "not a readable checkpoint",
        "empty.ckpt": "not a readable checkpoint (0 bytes",
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
