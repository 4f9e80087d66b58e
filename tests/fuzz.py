"""Fuzz test of every loader: damaged, truncated and odd files, with a limit on time and memory.

    python tests/fuzz.py [--count N] [--seed S] [--only KIND ...]

Each input must be read, or be refused by UserError or UnreadableMedia. Any other exception is a fault and is printed
with the mutation that made it; a hang, a crash or the need of more than 2 GiB ends the process. The suite runs a few
inputs of each kind (`tests/test_fuzz.py`).
"""

import argparse
import contextlib
import copy
import faulthandler
import json
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

UNDAMAGED = "undamaged"
SECONDS = 30
MEMORY = 2 * 2**30
EXTREMES = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00")
ODD_VALUES: tuple[Any, ...] = (None, "x", -1, 10**30, [], {}, 1.5, float("nan"), b"\xff", True)
TINY = [
    "model.hidden_size=16",
    "model.num_attention_heads=2",
    "model.intermediate_size=16",
    "model.num_hidden_layers=1",
]
SHORT = ["trainer.max_steps=1", "dataloader.num_workers=0", "trainer.enable_progress_bar=false"]

Case = tuple[str, Callable[[], Any]]
"""What was done to the input, and the reading of it."""


# -- mutations -----------------------------------------------------------------------------------------------


def mutate(content: bytes, generator: np.random.Generator) -> tuple[str, bytes]:
    """(what was done, the bytes) of one random damage."""
    data, size = bytearray(content), len(content)

    def place() -> int:  # headers are where most can go wrong
        return int(generator.integers(min(size, 256) if generator.random() < 0.5 else size))

    how = generator.choice(["flip", "truncate", "zero", "extreme", "insert", "repeat", "noise", "swap"])
    at = place()
    if how == "flip":
        for _ in range(int(generator.integers(1, 20))):
            data[place()] ^= 1 << int(generator.integers(8))
    elif how == "truncate":
        del data[at:]
    elif how == "zero":
        data[at : at + 4096] = bytes(len(data[at : at + 4096]))
    elif how == "extreme":
        data[at : at + 4] = EXTREMES[int(generator.integers(len(EXTREMES)))][: len(data[at : at + 4])]
    elif how == "insert":
        data[at:at] = generator.bytes(int(generator.integers(1, 64)))
    elif how == "repeat":
        data[at:at] = data[at : at + 1000] * int(generator.integers(1, 4))
    elif how == "noise":
        data[at:] = generator.bytes(len(data) - at)
    else:
        data[at:] = data[at:][::-1]
    return f"{how} at {at} of {size}", bytes(data)


def odd_values(value: Any, path: tuple = (), depth: int = 4) -> Iterator[tuple[str, Callable[[Any], None]]]:
    """(what, change) of each key of nested mappings, deleted or given an odd value in a copy of the root."""
    if not isinstance(value, dict) or not depth:
        return
    for key in list(value):
        here = "/".join(map(str, (*path, key)))

        def changed(root: Any, path: tuple = path, key: Any = key, **new: Any) -> None:
            for part in path:
                root = root[part]
            if "value" in new:
                root[key] = new["value"]
            else:
                del root[key]

        yield f"without {here}", changed
        for odd in ODD_VALUES:
            yield f"{here} = {odd!r}"[:80], lambda root, odd=odd, changed=changed: changed(root, value=odd)
        yield from odd_values(value[key], (*path, key), depth - 1)


# -- kinds of input ------------------------------------------------------------------------------------------


def damaged(
    name: str, content: bytes, count: int, seed: int, folder: Path, read: Callable[[Path], Any]
) -> Iterator[Case]:
    """Cases of a file of this name and content: as it is, then under random damage."""
    (folder / name).write_bytes(content)
    yield f"{name}: {UNDAMAGED}", lambda: read(folder / name)
    generator = np.random.default_rng(seed)
    for _ in range(count):
        what, data = mutate(content, generator)
        path = folder / name
        path.write_bytes(data)
        yield f"{name}: {what}", lambda path=path: read(path)


def audio(folder: Path, count: int, seed: int) -> Iterator[Case]:
    from mynah.utility.audio.files import audio_info, read_audio

    def read(path: Path) -> None:
        audio_info(path)
        read_audio(path, 100, 1000)
        if audio_info(path).samples < 10**8:
            read_audio(path)

    wav = 0.1 * np.random.default_rng(seed).standard_normal((8000, 2))
    for suffix, options in {
        "wav": {}, "float.wav": {"subtype": "FLOAT"}, "flac": {}, "ogg": {}, "mp3": {}, "odd.wav": {"rate": 11025},
    }.items():  # fmt: skip
        options = {"samplerate": options.pop("rate", 16000), **options}
        soundfile.write(folder / f"a.{suffix}", wav, **options)
        yield from damaged(f"a.{suffix}", (folder / f"a.{suffix}").read_bytes(), count, seed, folder, read)


def video(folder: Path, count: int, seed: int) -> Iterator[Case]:
    from mynah.utility.video.files import read_clip
    from mynah.utility.video.writing import write_clip

    frames = np.random.default_rng(seed).integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
    for suffix, codec in (("mp4", "mpeg4"), ("avi", "mpeg4"), ("mkv", "mpeg4"), ("mpg", "mpeg1video")):
        write_clip(folder / f"v.{suffix}", frames, 25, codec=codec)
        content = (folder / f"v.{suffix}").read_bytes()
        yield from damaged(f"v.{suffix}", content, count, seed, folder, lambda path: read_clip(path, 4, 32))


def captions(folder: Path, count: int, seed: int) -> Iterator[Case]:
    from mynah.utility.captions.corpus import CaptionCorpusConfig, read_captioned_clips
    from mynah.utility.captions.files import read_captions

    vatex = json.dumps([{"videoID": f"v{n}", "enCap": ["a red square", "über 'quoted' text"]} for n in range(20)])
    table = "video,caption\n" + "".join(f'v{n},"a, b ""c"" {n}"\n' for n in range(20))
    contents = {
        "c.json": vatex,
        "c.csv": table,
        "c.tsv": "video\tcaption\n" + "".join(f'v{n}\ta, b "c" {n}\n' for n in range(20)),
    }
    for name, text in contents.items():
        yield from damaged(name, text.encode(), count, seed, folder, lambda path: read_captions(path, "en"))
    (folder / "videos").mkdir(exist_ok=True)
    (folder / "videos" / "v0.mp4").touch()
    names = [
        "\ud800",
        "\udc80",
        "x" * 300,
        "/etc/passwd",
        "/" + "y" * 5000,
        "a\x00b",
        "/\x00",
        "../v0",
        "v0\n",
        "~",
        "",
        " ",
    ]
    for name in [*names, 10**5, None, [], {"a": 1}]:
        path = folder / "names.json"
        path.write_text(json.dumps([{"video": name, "caption": "a \ud800 b"}, {"video": "v0", "caption": "c"}]))
        config = CaptionCorpusConfig(file_path=str(folder / "videos"), train=str(path))
        yield f"id {name!r}"[:60], lambda config=config: read_captioned_clips(config, "train", folder / "skipped.txt")
    for text in (
        "9" * 10_000,
        "[" * 100_000,
        '[{"video": ' + "9" * 10_000 + "}]",
        "NaN",
        "[NaN]",
        "",
        "\ufeff",
        "[[[]]]",
    ):
        path = folder / "odd.json"
        path.write_text(text)
        yield f"json {text[:30]!r}", lambda path=path: read_captions(path, "en")


def tables(folder: Path, count: int, seed: int) -> Iterator[Case]:
    from mynah.utility.data.tables import read_split_table

    text = "path,label,split\n" + "".join(f"a{n}.wav,{'fm'[n % 2]},{['train', 'dev'][n % 2]}\n" for n in range(20))

    def read(path: Path) -> object:
        return read_split_table(path, "label")

    yield from damaged("labels.csv", text.encode(), count, seed, folder, read)


def yaml_files(folder: Path, count: int, seed: int) -> Iterator[Case]:
    import mynah
    from mynah.utility.acoustic.config import AcousticPretrainConfig
    from mynah.utility.configuration.load import load_config

    content = (mynah.ROOT / "upstream" / "aalbert" / "pretrain_config.yaml").read_bytes()
    yield from damaged(
        "c.yaml", content, 2 * count, seed, folder, lambda path: load_config(AcousticPretrainConfig, files=[path])
    )
    laughs = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    odd = (
        laughs * 1,
        "a: *a",
        "&a [*a]",
        "!!python/object/apply:os.system [id]",
        "? [a]\n: b",
        "{" * 5000,
        "- " * 5000,
    )
    for text in (
        *odd,
        "seed: " + "9" * 10_000,
        "seed: .nan",
        "seed: 0x" + "f" * 10_000,
        "\x00",
        "seed: 2001-99-99",
        "1: 2",
    ):
        path = folder / "odd.yaml"
        path.write_text(text)
        yield f"yaml {text[:30]!r}", lambda path=path: load_config(AcousticPretrainConfig, files=[path])


def caches(folder: Path, count: int, seed: int) -> Iterator[Case]:
    from mynah.utility.audio.durations import cache_file, measure_lengths
    from mynah.utility.video.frame_cache import FrameCache
    from mynah.utility.video.writing import write_clip

    wavs = folder / "wavs"
    wavs.mkdir(exist_ok=True)
    paths = [str(wavs / f"{n}.wav") for n in range(3)]
    for path in paths:
        soundfile.write(path, np.zeros(4000), 16000)

    def measure(_: Path) -> None:
        lengths, _ = measure_lengths(wavs, paths, title="x", progress=False)
        if any(value != 4000 for value in lengths.values()) and not hand_made:
            raise AssertionError(f"wrong lengths are believed: {lengths}")

    hand_made = False
    measure(wavs)
    cache = cache_file(wavs)
    content = cache.read_bytes()
    hand_made = True  # a flipped digit in a well-formed cache cannot be told from another length
    yield from damaged(cache.name, content, 2 * count, seed, cache.parent, measure)
    hand_made = False
    for value in (-1, -4000, 10**30, True, 1.5, "4000", None, []):
        forged = json.loads(content)
        for entry in forged["files"].values():
            entry[2] = value
        cache.write_text(json.dumps(forged))
        yield f"length {value!r}", lambda: measure(wavs)
    cache.write_text("[" * 100_000)
    yield "deep length cache", lambda: measure(wavs)

    clip = folder / "k.mp4"
    write_clip(clip, np.zeros((8, 32, 32, 3), dtype=np.uint8), 25, codec="mpeg4")
    frames = FrameCache(folder / "frames")
    frames.read(clip, 4, 32)
    entry = frames.entry(clip, 4, 32)

    def read(_: Path) -> None:
        assert frames.read(clip, 4, 32).shape == (4, 3, 32, 32)

    yield from damaged(entry.name, entry.read_bytes(), 2 * count, seed, entry.parent, read)
    header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 3, 1000000, 1000000), }"
    entry.write_bytes(b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n")
    yield "a forged header", lambda: read(entry)


def tokenizers(folder: Path, count: int, seed: int) -> Iterator[Case]:
    from mynah.utility.albert.tokenizer import AlbertTokenizer, load_tokenizer, tokenizer_from_plain

    own = AlbertTokenizer.train(["a red square moves", "the blue circle is still", "some other words"], 60)
    place = folder / "tokenizer"
    own.save(place)

    def read(_: Path) -> None:
        tokenizer = load_tokenizer(place)
        tokenizer.decode(tokenizer.text_ids("a red circle"))

    for name in ("spiece.model", "tokenizer_config.json"):
        content = (place / name).read_bytes()
        yield from damaged(name, content, count, seed, place, read)
        (place / name).write_bytes(content)
    (place / "spiece.model").write_bytes(b"")
    yield "empty spiece.model", lambda: read(place)
    plain = own.to_plain()
    for what, change in odd_values(plain, depth=1):
        changed = dict(plain)
        change(changed)
        yield f"tokenizer {what}", lambda changed=changed: tokenizer_from_plain(changed)


def _tones(folder: Path) -> Path:
    """A corpus of noise, two speakers."""
    for speaker in range(2):
        for number in range(5):
            path = folder / "corpus" / f"s{speaker}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 4000), 16000)
    return folder / "corpus"


def _data(corpus: Path) -> list[str]:
    return [f"datarc.file_path={{t: {corpus}}}", "datarc.min_timestep=1600", "datarc.max_timestep=3200"]


def checkpoints(folder: Path, count: int, seed: int) -> Iterator[Case]:
    import mynah
    from mynah.downstream.build import TaskOptions, find_trained, rebuild
    from mynah.downstream.training import train

    corpus = _tones(folder)
    mynah.pretrain("aalbert", name="up", root=folder, overrides=[*TINY, *SHORT, *_data(corpus)])
    task = TaskOptions(
        root=folder,
        name="task",
        upstream="fbank",
        downstream="voxceleb1_speaker",
        overrides=[*SHORT, f"datarc.file_path={corpus}"],
    )
    train(task)

    def load_upstream(path: Path) -> None:
        mynah.load("aalbert", ckpt=str(path))

    def load_task(path: Path) -> None:
        options = TaskOptions(resume=str(path))
        rebuild(options, find_trained(options, writes=False))

    for name, read in (("up", load_upstream), ("task", load_task)):
        whole = folder / name / "checkpoints" / "last.ckpt"
        yield from damaged(f"{name}.ckpt", whole.read_bytes(), 3 * count, seed, folder, read)
        checkpoint = torch.load(whole, weights_only=True)
        kept = {key: checkpoint[key] for key in ("mynah", "state_dict")}
        cases = list(odd_values(kept))
        generator = np.random.default_rng(seed)
        chosen = generator.permutation(len(cases))[: 20 * count]
        for what, change in (cases[index] for index in chosen):
            changed = copy.deepcopy(kept)
            change(changed)
            path = folder / f"{name}_odd.ckpt"
            torch.save(changed, path)
            yield f"{name}.ckpt {what}", lambda path=path, read=read: read(path)
    yield from exported(folder, count, seed, load_upstream)


def exported(folder: Path, count: int, seed: int, read: Callable[[Path], None]) -> Iterator[Case]:
    """Weights of `folder`/up, exported; then under random damage, and with odd values under a right digest."""
    from mynah.upstream.exporting import ExportOptions, export
    from mynah.utility.experiments.exported import Exported, encode_export, read_exported

    options = ExportOptions(source=folder / "up", name="tiny", licenses={"t": "none"}, folder=folder)
    whole = export(options)["file"].read_bytes()
    yield from damaged("weights.safetensors", whole, 3 * count, seed, folder, read)
    (folder / "weights.safetensors").write_bytes(whole)
    parts = read_exported(folder / "weights.safetensors")
    kept = {"metadata": parts.metadata, "weights": dict(parts.weights)}
    cases = [
        (what, change)
        for what, change in odd_values(kept)
        if not what.startswith(("weights =", "without", "metadata =")) and "= b'" not in what
    ]
    for what, change in (cases[index] for index in np.random.default_rng(seed).permutation(len(cases))[: 10 * count]):
        changed = copy.deepcopy(kept)
        change(changed)
        tensors = {name: value for name, value in changed["weights"].items() if isinstance(value, torch.Tensor)}
        path = folder / "odd.safetensors"
        path.write_bytes(encode_export(tensors, Exported({}, changed["metadata"], parts.provenance)))
        yield f"weights.safetensors {what}", lambda path=path: read(path)


def resumed_runs(folder: Path, count: int, seed: int) -> Iterator[Case]:
    import mynah

    corpus, whole = _tones(folder), folder / "run"
    mynah.pretrain("aalbert", name="run", root=folder, overrides=[*TINY, *SHORT, *_data(corpus)])
    checkpoint = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    lists = {key: dict(enumerate(checkpoint[key])) for key in ("optimizer_states", "lr_schedulers")}
    walked = {key: value for key, value in checkpoint.items() if key not in ("mynah", "state_dict")} | lists
    cases = list(odd_values(walked, depth=3))
    for what, change in (cases[index] for index in np.random.default_rng(seed).permutation(len(cases))[: 3 * count]):
        changed = copy.deepcopy(walked)
        change(changed)
        for key in lists:
            if isinstance(changed.get(key), dict):
                changed[key] = list(changed[key].values())
        odd = folder / f"odd{len(list(folder.iterdir()))}"
        shutil.copytree(whole, odd)
        changed |= {key: checkpoint[key] for key in ("mynah", "state_dict")}
        torch.save(changed, odd / "checkpoints" / "last.ckpt")
        yield f"run {what}", lambda odd=odd: mynah.pretrain(resume=str(odd), overrides=["trainer.max_steps=2"])


def weight_files(folder: Path, count: int, seed: int) -> Iterator[Case]:
    from safetensors.torch import save_file

    from mynah.utility.experiments.weight_files import read_weights

    weights = {"a": torch.zeros(4, 5), "b": torch.ones(3)}
    save_file(weights, folder / "w.safetensors")
    torch.save(weights, folder / "w.bin")
    for name in ("w.safetensors", "w.bin"):
        yield from damaged(
            name, (folder / name).read_bytes(), count, seed, folder, lambda path: read_weights(path, "weights")
        )


def s3prl_files(folder: Path, count: int, seed: int) -> Iterator[Case]:
    import mynah
    from tests.upstream import s3prl_peer

    def read(path: Path) -> None:
        mynah.load("aalbert", ckpt=str(path))

    for layout, zipped in (("2021", True), ("v0.1", False)):
        path = s3prl_peer.write(folder / "whole.ckpt", s3prl_peer.content("audio_albert", layout), zipped)
        yield from damaged("s.ckpt", path.read_bytes(), 3 * count, seed, folder, read)
    whole = s3prl_peer.content("audio_albert", "2022")
    cases = list(odd_values(whole))
    for what, change in (cases[index] for index in np.random.default_rng(seed).permutation(len(cases))[: 20 * count]):
        changed = copy.deepcopy(whole)
        change(changed)
        torch.save(changed, folder / "odd.ckpt")
        yield f"s3prl {what}", lambda: read(folder / "odd.ckpt")


LOADERS = (
    audio,
    video,
    captions,
    tables,
    yaml_files,
    caches,
    tokenizers,
    checkpoints,
    resumed_runs,
    weight_files,
    s3prl_files,
)
KINDS: dict[str, Callable[[Path, int, int], Iterator[Case]]] = {each.__name__: each for each in LOADERS}


# -- running -------------------------------------------------------------------------------------------------


def run(kind: str, folder: Path, count: int, seed: int) -> Iterator[str]:
    """A line for each input of the kind that was neither read nor refused."""
    from mynah.utility.data.media_files import UnreadableMedia
    from mynah.utility.errors import UserError, is_lack_of_memory

    cases = read = 0
    for what, attempt in KINDS[kind](folder, count, seed):
        cases += 1
        print(f"{kind}: {what}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            attempt()
            read += 1
        except (UserError, UnreadableMedia) as error:
            if what.endswith(UNDAMAGED):
                yield f"{kind}: {what}, and refused: {error}"
        except Exception as error:  # what no loader may raise
            if is_lack_of_memory(error) and "= 1000000" in what:
                continue  # the program says so; a number that large asks for it
            place = traceback.extract_tb(error.__traceback__)[-1]
            yield f"{kind}: {what}: {type(error).__name__}: {str(error)[:200]} ({place.filename}:{place.lineno})"
        finally:
            faulthandler.cancel_dump_traceback_later()
    print(f"{kind}: {cases} inputs, {read} read, {cases - read} refused")


def limit_memory() -> None:
    """Let this process have only so much address space more than it has now."""
    with contextlib.suppress(FileNotFoundError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="damaged copies of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    started = time.monotonic()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MYNAH_CACHE"] = str(Path(scratch) / "cache")
        limit_memory()
        for kind in given.only:
            place = Path(scratch) / kind
            place.mkdir()
            faults += run(kind, place, given.count, given.seed)
    print("\n".join(faults) or "no fault", f"({time.monotonic() - started:.0f} s)")
    sys.exit(bool(faults))
