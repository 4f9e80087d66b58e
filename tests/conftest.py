"""Fixtures that every test may use: a cache of its own, real data, a small corpus, the scripts as processes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # some tests fork, which a process with threads must not
REPOSITORY = Path(__file__).parents[1]
CLONE = (REPOSITORY / "hubconf.py").is_file()
"""Whether the tests lie in a clone; else they are those of an installed package."""
SPEAKERS, UTTERANCES = 4, 6


@pytest.fixture
def shared_data() -> Path:
    """The folder of real speech beside the checkout; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch) -> Path:
    """Each test has a cache folder of its own, so that none depends on what the user's holds."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MYNAH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def demo_cache_folder(tmp_path_factory) -> Path:
    """One cache folder for all the tests that need the demo corpora, which take seconds to make.

    The processes of pytest-xdist, whose own folders lie in one, share it.
    """
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "demo_cache"


@pytest.fixture
def demo_cache(own_cache, demo_cache_folder, monkeypatch) -> Path:
    """Use the session's demo corpora."""
    monkeypatch.setenv("MYNAH_CACHE", str(demo_cache_folder))
    return demo_cache_folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Speaker folders of short harmonic tones in noise, each speaker at a pitch of its own."""
    root = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(0)
    for speaker in range(SPEAKERS):
        for utterance in range(UTTERANCES):
            seconds = np.arange(int(generator.integers(8000, 24000))) / 16000
            partials = [np.sin(2 * np.pi * 110 * (speaker + 1) * k * seconds + k) / k for k in range(1, 6)]
            wav = 0.1 * sum(partials) + generator.normal(0, 0.01, len(seconds))
            path = root / f"speaker{speaker}" / "chapter" / f"{utterance}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wav.astype("float32"), 16000)
    return root


@pytest.fixture
def tiny_pretraining(corpus) -> list[str]:
    """-o values of a pretraining run that takes a second: a tiny model, dropout and accumulation included."""
    return [
        f"datarc.file_path={{tones: {corpus}}}",
        "datarc.max_timestep=8000",
        "datarc.min_timestep=4000",
        "datarc.valid_fraction=0.2",
        "model.hidden_size=16",
        "model.num_attention_heads=2",
        "model.intermediate_size=32",
        "model.num_hidden_layers=2",
        "model.hidden_dropout_prob=0.1",
        "dataloader.batch_size=4",
        "dataloader.num_workers=0",
        "optimizer.lr=1e-3",
        "scheduler.num_warmup_steps=5",
        "scheduler.num_training_steps=100",
        "trainer.max_steps=40",
        "trainer.accumulate_grad_batches=2",
        "trainer.val_check_interval=14",
        "trainer.log_every_n_steps=5",
        "trainer.enable_progress_bar=false",
        "checkpoint.save_every_n_steps=5",
        "logging.pictures_every_n_steps=0",
    ]


Start = Callable[..., subprocess.Popen]


@pytest.fixture
def start(own_cache, tmp_path_factory) -> Start:
    """start("run_pretrain.py", *arguments) -> the script as a process of its own, on one thread.

    With forked=True it is forked from one that has imported the libraries (forked.py), else a new interpreter's.
    Where there is no clone it is that of the installed program, `mynah pretrain`.
    """
    processes = []

    def begin(name: str, *arguments: str, forked: bool = False) -> subprocess.Popen:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MYNAH_CACHE": str(own_cache)}
        if CLONE and forked and name != "-c":
            from tests.forked import ForkedProcess

            output = tmp_path_factory.mktemp("output") / "printed.txt"
            processes.append(ForkedProcess(REPOSITORY / name, arguments, environment, output))
            return processes[-1]
        program = [name]
        if name.startswith("run_") and not CLONE:
            program = ["-m", "mynah", name.removeprefix("run_").removesuffix(".py")]
        process = subprocess.Popen(
            [sys.executable, *program, *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def script(start) -> Callable[..., tuple[int, str]]:
    """script("run_pretrain.py", *arguments) -> (exit status, everything it printed).

    The process is forked from one that has imported the libraries; with fresh=True it is a new interpreter's.
    """

    def run(*command: str, fresh: bool = False) -> tuple[int, str]:
        process = start(*command, forked=not fresh)
        output, _ = process.communicate(timeout=400)
        return process.returncode, output

    return run


CLIPS = {"train": 8, "dev": 3, "test": 3}
TINTS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Path:
    """A folder in VATEX's layout: clips of one tint growing brighter or darker, with captions that say so."""
    from mynah.utility.video.writing import write_clip

    root = tmp_path_factory.mktemp("clips")
    (root / "videos").mkdir()
    for split, name in (
        ("train", "vatex_training_v1.0.json"),
        ("dev", "vatex_validation_v1.0.json"),
        ("test", "vatex_public_test_english_v1.1.json"),
    ):
        entries = []
        for index in range(CLIPS[split]):
            tint, direction = list(TINTS)[index % 3], ("brighter", "darker")[index % 2]
            ramp = np.linspace(0.3, 1.0, 10)[:: 1 if direction == "brighter" else -1]
            shade = np.linspace(0.5, 1.0, 48)[:, None] * np.ones((10, 40, 1, 1))  # from left to right
            frames = (ramp[:, None, None, None] * shade * np.array(TINTS[tint])).astype(np.uint8)
            write_clip(root / "videos" / f"{split}{index}.mp4", frames, 10)
            captions = [f"a {tint} surface gets {direction}", f"the {tint} screen becomes {direction} slowly"]
            entries.append({"videoID": f"{split}{index}", "enCap": captions, "chCap": ["红色的画面"]})
        (root / name).write_text(json.dumps(entries), encoding="utf-8")
    return root


@pytest.fixture
def tiny_video_model() -> list[str]:
    """-o values of a vidswin_albert that takes milliseconds."""
    return [
        "model.num_frames=4",
        "model.frame_size=32",
        "model.swin.embed_dim=8",
        "model.swin.depths=[1, 2]",
        "model.swin.num_heads=[1, 2]",
        "model.swin.window_size=[2, 4, 4]",
        "model.albert.num_hidden_layers=2",
        "model.albert.hidden_size=16",
        "model.albert.num_attention_heads=2",
        "model.albert.intermediate_size=32",
        "model.albert.embedding_size=8",
        "model.albert.img_feature_dim=12",
        "model.albert.vocab_size=60",
    ]


@pytest.fixture
def tiny_video_pretraining(clips, tiny_video_model) -> list[str]:
    """-o values of a pretraining run on clips that takes some seconds, dropout and accumulation included."""
    return [
        *tiny_video_model,
        f"datarc.file_path={clips / 'videos'}",
        "datarc.captions_per_clip=1",
        "dataloader.batch_size=2",
        "dataloader.eval_batch_size=2",
        "dataloader.num_workers=0",
        "optimizer.lr=1e-3",
        "trainer.max_steps=20",
        "trainer.accumulate_grad_batches=2",
        "trainer.val_check_interval=8",
        "trainer.log_every_n_steps=5",
        "trainer.enable_progress_bar=false",
        "checkpoint.save_every_n_steps=5",
    ]
