"""Checkpoints as s3prl writes them, with random weights, and its hidden states by the published equations.

All is written plainly in numpy, in double precision, of nothing but the file's content and one waveform; Kaldi's
features alone are those of torchaudio, as in s3prl.
"""

import argparse
import math
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchaudio.compliance import kaldi

WIDTH, INNER, HEADS = 24, 40, 4
MEL = {"feat_type": "mel", "channel": 0, "log": True, "delta": 0, "cmvn": True}
SPECTROGRAMS = {"target_level": -25, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80, "n_mfcc": 13}
TRANSFORMER = {
    "input_dim": -1,
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "share_layer": False,
    "pre_layer_norm": False,
}
KALDI = {
    "kaldi": {
        "feat_type": "fbank",
        "fbank": {"num_mel_bins": 80, "frame_length": 25.0, "frame_shift": 10.0, "use_log_fbank": True},
        "mfcc": {"num_ceps": 13, "frame_length": 25.0, "frame_shift": 10.0},
        "spectrogram": {"frame_length": 25.0, "frame_shift": 10.0},
    },
    "delta": {"order": 2, "win_length": 5},
    "cmvn": {"use_cmvn": True},
}
KINDS = ("audio_albert", "mockingjay", "mockingjay_linear", "tera", "tera_fbank")
NAMES = {"audio_albert": "aalbert", "mockingjay": "mockingjay", "mockingjay_linear": "mockingjay"}
"""Kind of checkpoint -> the upstream that takes it; of the others, tera."""
LAYOUTS = ("v0.1", "2021", "2022")
OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


def configuration(kind: str, **changes: Any) -> dict[str, Any]:
    """transformer, task and audio of a published kind, but small. changes: of values, {"task.sequence_length": 9}."""
    linear = {**MEL, "feat_type": "linear", "channel": 1}
    config = {
        "transformer": {**TRANSFORMER, "num_hidden_layers": 4 if kind == "mockingjay_linear" else 3},
        "task": {"sequence_length": 1500, "mask_proportion": 0.15, "mask_frequency": 0.0, "noise_proportion": 0.0},
        "audio": {**SPECTROGRAMS, "input": MEL, "target": linear if kind == "mockingjay_linear" else MEL},
    }
    config["transformer"]["share_layer"] = kind == "audio_albert"
    config["task"]["mask_frequency"] = 0.2 if kind.startswith("tera") else 0.0
    if kind == "tera_fbank":
        config["audio"] = KALDI
    return changed(config, changes)


def changed(config: Any, changes: dict[str, Any]) -> Any:
    """A deep copy with other values under dotted keys; ... takes one away."""
    copied = {key: changed(value, {}) for key, value in config.items()} if isinstance(config, dict) else config
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = copied
        for section in sections:
            place = place[section]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return copied


def content(kind: str, layout: str = "2021", seed: int = 0, **changes: Any) -> dict[str, Any]:
    """What the file of a kind holds in a layout; its Python objects as training left them there."""
    config = configuration(kind, **changes)
    transformer, head = _weights(config, seed)
    arguments = argparse.Namespace(config="config.yaml", seed=1337, expdir=Path("result"), names={"a", "b"})
    if layout == "v0.1":
        rest = {"mask_proportion": 0.15, "mask_frequency": config["task"]["mask_frequency"], "prune_headids": "None"}
        length = config["task"]["sequence_length"]
        section = {**config["transformer"], **rest, "max_input_length": length, "layer_norm_eps": "1e-12"}
        section = {"downsample_rate": 1, **section}
        renamed = [_old(weights) for weights in (transformer, head)]
        return {
            "SpecHead": renamed[1],
            "Transformer": renamed[0],
            "Optimizer": {"state": {}, "object": _object_of_a_lost_module()},
            "Global_step": 500000,
            "Settings": {"Config": {"transformer": section, "online": config["audio"]}, "Paras": arguments},
        }
    states = {
        "Optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 2e-4, "betas": (0.9, 1)}]}
    }
    states |= {"Step": 1000000, "Args": arguments, "SpecHead": head, "Transformer": transformer}
    if layout == "2021":
        return {
            **states,
            "Config": config,
            "Runner": {"total_steps": 1000000},
            "Scheduler": _object_of_a_lost_module(),
        }
    return {**states, "Config": {"runner": {"total_steps": 1000000}}, "Upstream_Config": config}


def write(path: Path, whole: dict[str, Any], zipped: bool = True) -> Path:
    torch.save(whole, path, _use_new_zipfile_serialization=zipped)
    sys.modules.pop("optimizers", None)
    return path


class _Lost:
    """An optimizer, of a module that is there when it is pickled and gone when it is read."""

    def __init__(self) -> None:
        self.state = defaultdict(dict, {0: {"step": 3}})
        self.defaults = {"lr": 1e-4}


def _object_of_a_lost_module() -> Any:
    module = types.ModuleType("optimizers")
    lost = type("BertAdam", (_Lost,), {"__module__": "optimizers", "__qualname__": "BertAdam"})
    module.BertAdam = lost
    sys.modules["optimizers"] = module
    return lost()


def _weights(config: dict[str, Any], seed: int) -> tuple[OrderedDict, OrderedDict]:
    generator = torch.Generator().manual_seed(seed)
    shape, audio = config["transformer"], config["audio"]
    width, inner = shape["hidden_size"], shape["intermediate_size"]

    def linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        weight = 1.5 / math.sqrt(inputs) * torch.randn(outputs, inputs, generator=generator)
        return {f"{name}.weight": weight, f"{name}.bias": 0.3 * torch.randn(outputs, generator=generator)}

    def norm(name: str) -> dict[str, Tensor]:
        weight = 1 + 0.2 * torch.randn(width, generator=generator)
        return {f"{name}.weight": weight, f"{name}.bias": 0.2 * torch.randn(width, generator=generator)}

    def layer() -> dict[str, Tensor]:
        return {
            **linear("attention.self.query", width, width),
            **linear("attention.self.key", width, width),
            **linear("attention.self.value", width, width),
            **linear("attention.output.dense", width, width),
            **norm("attention.output.LayerNorm"),
            **linear("intermediate.dense", width, inner),
            **linear("output.dense", inner, width),
            **norm("output.LayerNorm"),
        }

    inputs = size_of(audio, "input") * shape.get("downsample_rate", 1)
    found = OrderedDict(linear("input_representations.spec_transform", inputs, width))
    found.update(norm("input_representations.LayerNorm"))
    shared = layer()
    for index in range(shape["num_hidden_layers"]):
        each = shared if shape["share_layer"] else layer()
        found.update({f"encoder.layer.{index}.{name}": weight for name, weight in each.items()})
    outputs = size_of(audio, "target") * shape.get("downsample_rate", 1)
    head = OrderedDict({**linear("dense", width, width), **norm("LayerNorm"), **linear("output", width, outputs)})
    return found, head


def size_of(audio: Any, key: str) -> int:
    """Values of a frame of the input or of the target."""
    if not isinstance(audio, dict):
        return 40
    if "kaldi" in audio:
        kind = audio["kaldi"]["feat_type"]
        bins = {"fbank": audio["kaldi"]["fbank"]["num_mel_bins"], "mfcc": 13, "spectrogram": 257}[kind]
        return bins * (1 + audio["delta"]["order"])
    section = audio.get(key, audio["input"])
    return {"linear": audio["n_freq"]}.get(section["feat_type"], audio["n_mels"]) * (1 + section["delta"])


def _old(weights: dict[str, Tensor]) -> OrderedDict:
    renamed = OrderedDict()
    for name, weight in weights.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(new, old)
        renamed[name] = weight
    return renamed


# -- the equations -------------------------------------------------------------------------------------------


def hidden_states(whole: dict[str, Any], wav: Tensor) -> list[np.ndarray]:
    """H_0 to H_L of one waveform: (T, D) each."""
    return states_of_features(whole, features(configuration_in(whole)["audio"], wav))


def configuration_in(whole: dict[str, Any]) -> dict[str, Any]:
    if "Settings" in whole:
        section = whole["Settings"]["Config"]["transformer"]
        task = {"sequence_length": section["max_input_length"]}
        return {"transformer": section, "task": task, "audio": whole["Settings"]["Config"]["online"]}
    return whole["Config"] if "transformer" in whole["Config"] else whole["Upstream_Config"]


def states_of_features(whole: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    """x: (T, D) features, cut into parts as `torch.chunk` cuts them -> H_0 to H_L of the parts laid end to end."""
    config = configuration_in(whole)
    longest = config["task"]["sequence_length"]
    parts = [x]
    if longest and len(x) > longest:
        parts = [part.numpy() for part in torch.from_numpy(x).chunk(math.ceil(len(x) / longest))]
    found = [_encode(whole, config["transformer"], part) for part in parts]
    return [np.concatenate(states) for states in zip(*found, strict=True)]


def _encode(whole: dict[str, Any], shape: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    weights = {name: weight.double().numpy() for name, weight in whole["Transformer"].items()}
    for name in list(weights):
        weights[name.replace(".gamma", ".weight").replace(".beta", ".bias")] = weights[name]
    stacking = shape.get("downsample_rate", 1)
    x = x[: len(x) // stacking * stacking].reshape(len(x) // stacking, -1)
    told = int((x.sum(1) != 0).sum())
    mask = np.where(np.arange(len(x)) < told, 0.0, -10000.0)
    epsilon = float(shape["layer_norm_eps"])

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        return (
            weights[f"{name}.weight"] * centred / np.sqrt((centred**2).mean(1, keepdims=True) + epsilon)
            + weights[f"{name}.bias"]
        )

    x = norm("input_representations.LayerNorm", linear("input_representations.spec_transform", x) + positions(len(x)))
    states = [x]
    size = WIDTH // HEADS
    for index in range(shape["num_hidden_layers"]):
        at = f"encoder.layer.{index}"
        query, key, value = (linear(f"{at}.attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for head in range(HEADS):
            of = slice(head * size, (head + 1) * size)
            scores = query[:, of] @ key[:, of].T / math.sqrt(size) + mask
            exponents = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(exponents / exponents.sum(1, keepdims=True) @ value[:, of])
        attended = linear(f"{at}.attention.output.dense", np.concatenate(heads, 1))
        x = norm(f"{at}.attention.output.LayerNorm", x + attended)
        inner = ACTIVATIONS[shape["hidden_act"]](linear(f"{at}.intermediate.dense", x))
        x = norm(f"{at}.output.LayerNorm", x + linear(f"{at}.output.dense", inner))
        states.append(x)
    return states


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "swish": lambda x: x / (1 + np.exp(-x)),
}


def positions(count: int) -> np.ndarray:
    table = np.zeros((count, WIDTH))
    for position in range(count):
        for channel in range(WIDTH):
            angle = position / 10000 ** (2 * (channel // 2) / WIDTH)
            table[position, channel] = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
    return table


def features(audio: dict[str, Any], wav: Tensor) -> np.ndarray:
    """(T, D) of one waveform."""
    samples = wav.double().numpy()
    if "kaldi" in audio:
        kind = audio["kaldi"]["feat_type"]
        x = getattr(kaldi, kind)(wav[None], sample_frequency=16000, **audio["kaldi"][kind])
        return normalized(with_deltas(x.double().numpy(), audio["delta"]["order"]))
    samples = samples * 10 ** (audio["target_level"] / 20) / (math.sqrt((samples**2).mean()) + 1e-10)
    wanted = audio["input"]
    x = power(samples, audio["n_freq"])
    if wanted["feat_type"] == "mel":
        x = x @ htk_filters(audio["n_freq"], audio["n_mels"])
    x = with_deltas(np.log(x + 1e-10), wanted["delta"])
    return normalized(x) if wanted["cmvn"] else x


def power(samples: np.ndarray, bins: int) -> np.ndarray:
    """Frames of 400 samples centred at multiples of 160, reflected at the ends, periodic Hann window."""
    points = 2 * (bins - 1)
    padded = np.pad(samples, points // 2, mode="reflect")
    window = np.zeros(points)
    window[(points - 400) // 2 : (points - 400) // 2 + 400] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [padded[160 * t : 160 * t + points] * window for t in range(1 + len(samples) // 160)]
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2


def htk_filters(bins: int, filters: int) -> np.ndarray:
    """Triangles between points that are even on the scale 2595 log10(1 + f / 700), from 0 to 8000 Hz."""
    top = 2595 * math.log10(1 + 8000 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, filters + 2) / 2595) - 1)
    frequencies = np.linspace(0, 8000, bins)
    table = np.zeros((bins, filters))
    for index in range(filters):
        low, middle, high = edges[index : index + 3]
        rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
        table[:, index] = np.maximum(0, np.minimum(rising, falling))
    return table


def with_deltas(x: np.ndarray, order: int) -> np.ndarray:
    """Derivatives over 5 frames, the first and the last repeated beyond the ends."""
    parts = [x]
    for _ in range(order):
        last, previous = len(x) - 1, parts[-1]
        at = [[previous[min(max(t + n, 0), last)] for n in (-2, -1, 1, 2)] for t in range(len(x))]
        parts.append(np.array([(2 * (d - a) + (c - b)) / 10 for a, b, c, d in at]))
    return np.concatenate(parts, 1)


def normalized(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / (x.std(0, ddof=1) + 1e-10)
