"""s3prl's Mockingjay, Audio ALBERT and TERA as acoustic models: their configuration and weights in our terms."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchaudio.compliance import kaldi

from mynah.utility.configuration.sections import shown
from mynah.utility.errors import UserError
from mynah.utility.experiments.s3prl_files import S3prlCheckpoint

ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "swish": "silu"}
LOG_FLOOR = 1e-10
DELTA_WINDOW = 5
KALDI = {"fbank": "fbank", "mfcc": "mfcc", "spectrogram": "kaldi_spectrogram"}
"""Their name of a feature of Kaldi -> our front end and its feature."""
KALDI_OPTIONS = {
    "frame_length": "window_ms",
    "frame_shift": "hop_ms",
    "num_mel_bins": "num_mel_bins",
    "num_ceps": "num_ceps",
}
QUERY, PROJECTIONS = "attention.self.query", "attention.query_key_value"
NORMS = {"gamma": "weight", "beta": "bias"}
LAYER = {
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}
AROUND = {
    "input_representations.spec_transform": "input_projection",
    "input_representations.LayerNorm": "input_norm",
}
HEAD = {"dense": "projection", "LayerNorm": "norm", "output": "output"}
REQUIRED = object()

Plain = dict[str, Any]


class _Misfit(Exception):
    """What keeps a model of s3prl from being one of ours."""


def config_of_s3prl(theirs: S3prlCheckpoint, source: Any) -> Plain:
    """The plain sections of an `AcousticConfig`; their values are still to be checked by it.

    Raises UserError, naming `source`, where the model has a part that there is not here.
    """
    try:
        features, targets = _features(theirs.config["audio"])
        model = _model(theirs.config["transformer"], theirs.config["task"])
    except _Misfit as misfit:
        raise UserError(f"{source}: this model of s3prl cannot be built here: {misfit}") from misfit
    return {
        "model": model,
        "features": features,
        "objective": {"name": "reconstruction", "reconstruction": {"targets": targets}},
    }


def weights_of_s3prl(theirs: S3prlCheckpoint, plain: Plain, source: Any) -> dict[str, Tensor]:
    """The weights of the `AcousticModel` that `plain` configures; unknown names stay, for strict loading.

    Raises UserError where a projection is incomplete, or layers that are said to share their weights differ.
    """
    weights = _with_new_names(theirs.transformer)
    if plain["model"]["num_hidden_groups"] == 1:
        weights = _first_layer_only(weights, plain["model"]["num_hidden_layers"], source)
    target = plain["objective"]["reconstruction"]["targets"][0]["feature"]
    found = {}
    for name, weight in weights.items():
        module, _, kind = name.rpartition(".")
        layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", module)
        if layer is None:
            found[f"{AROUND.get(module, module)}.{kind}"] = weight
        elif layer[2] == QUERY:
            found[f"encoder.groups.{layer[1]}.0.{PROJECTIONS}.{kind}"] = _projections(weights, name, source)
        elif layer[2] not in (QUERY.replace("query", "key"), QUERY.replace("query", "value")):
            found[f"encoder.groups.{layer[1]}.0.{LAYER.get(layer[2], layer[2])}.{kind}"] = weight
    for name, weight in _with_new_names(theirs.head).items():
        module, _, kind = name.rpartition(".")
        found[f"objective.heads.{target}.{HEAD.get(module, module)}.{kind}"] = weight
    return found


def _projections(weights: dict[str, Tensor], query: str, source: Any) -> Tensor:
    """The weights, or biases, of query, key and value as the rows of one, given the name of the first."""
    names = [query.replace(".query.", f".{part}.") for part in ("query", "key", "value")]
    parts = [weights.get(name) for name in names]
    if any(part is None or part.shape != weights[query].shape or not part.dim() for part in parts):
        raise UserError(f"{source}: s3prl's, but it lacks {', '.join(names)} of one shape")
    return torch.cat(parts)


def _model(transformer: Plain, task: Plain) -> Plain:
    if _flag(transformer, "pre_layer_norm", False):
        raise _Misfit(
            "pre_layer_norm is true, which is another network (LayerNorm before attention and before the "
            "feed-forward block); only those with pre_layer_norm false are supported"
        )
    if transformer.get("prune_headids") not in (None, "None", []):
        raise _Misfit(f"prune_headids is {shown(transformer['prune_headids'])}: heads were taken out of it")
    layers = _number(transformer, "num_hidden_layers", int)
    stacking = _number(transformer, "downsample_rate", int, 1)
    longest = _number(task, "sequence_length", int, 0)
    if stacking > 1 and longest > 0:
        raise _Misfit(f"downsample_rate is {stacking} and max_input_length {longest}; one of them at a time")
    return {
        "num_hidden_layers": layers,
        "num_hidden_groups": 1 if _flag(transformer, "share_layer", False) else layers,
        "hidden_size": _number(transformer, "hidden_size", int),
        "num_attention_heads": _number(transformer, "num_attention_heads", int),
        "intermediate_size": _number(transformer, "intermediate_size", int),
        "hidden_act": _choice(transformer, "hidden_act", ACTIVATIONS),
        "layer_norm_eps": _number(transformer, "layer_norm_eps", float),
        "initializer_range": _number(transformer, "initializer_range", float, 0.02),
        "hidden_dropout_prob": _number(transformer, "hidden_dropout_prob", float),
        "attention_probs_dropout_prob": _number(transformer, "attention_probs_dropout_prob", float),
        "frames_per_position": stacking,
        "mask_token": False,
        "max_positions": longest or None,
        "ignore_blank_positions": True,
    }


def _features(audio: Any) -> tuple[Plain, list[Plain]]:
    """The section `features`, and the targets of the reconstruction."""
    if not isinstance(audio, dict):
        raise _Misfit(
            "its configuration has no section audio: it was trained on features that were computed outside of it, "
            "and how is not known"
        )
    if "kaldi" in audio:
        return _kaldi_features(audio)
    _expect(audio, "eps", LOG_FLOOR)
    spectrogram = {
        "sample_rate": _number(audio, "sample_rate", int, 16000),
        "n_fft": 2 * (_number(audio, "n_freq", int, 201) - 1),
        "window_ms": _number(audio, "win_ms", float, 25.0),
        "hop_ms": _number(audio, "hop_ms", float, 10.0),
        "n_mels": _number(audio, "n_mels", int, 40),
    }
    wanted = _feature(audio, "input")
    features = {
        "front_end": "spectrogram",
        "spectrogram": spectrogram,
        "input": wanted,
        "level_db": _number(audio, "target_level", float),
    }
    return features, [_feature(audio, "target") if "target" in audio else wanted]


def _feature(audio: Plain, key: str) -> Plain:
    """The feature of the section `input` or `target`."""
    section = _section(audio, key)
    try:
        kind = _choice(section, "feat_type", {"mel": "mel", "linear": "linear"})
        if not _flag(section, "log", False):
            raise _Misfit(f"log is false; there are only logarithms of {kind} spectrograms here")
        num_deltas, cmvn = _number(section, "delta", int, 0), _flag(section, "cmvn", False)
    except _Misfit as misfit:
        raise _Misfit(f"in audio.{key}, {misfit}") from misfit
    return {"feature": kind, "num_deltas": num_deltas, "cmvn": cmvn}


def _kaldi_features(audio: Plain) -> tuple[Plain, list[Plain]]:
    """Features of torchaudio.compliance.kaldi, of which s3prl scales no loudness."""
    section = _section(audio, "kaldi")
    kind = str(section.get("feat_type", "fbank"))
    front_end = _choice({"feat_type": kind}, "feat_type", KALDI)
    options = {}
    defaults = inspect.signature(getattr(kaldi, kind)).parameters
    given = _section(section, kind)
    for name, value in given.items():
        if name in KALDI_OPTIONS:
            options[KALDI_OPTIONS[name]] = _number(given, name, int if name.startswith("num_") else float)
        elif name not in defaults or defaults[name].default != value:
            raise _Misfit(f"audio.kaldi.{kind}.{name} is {shown(value)}, which cannot be set here")
    for name, ours in KALDI_OPTIONS.items():
        if name in defaults:
            options.setdefault(ours, defaults[name].default)
    delta, cmvn = audio.get("delta", {}), _section(audio, "cmvn")
    if not isinstance(delta, dict):
        raise _Misfit(f"audio.delta is {shown(delta)}, not a section")
    _expect(delta, "win_length", DELTA_WINDOW)
    _expect(cmvn, "eps", LOG_FLOOR)
    feature = {
        "feature": front_end,
        "num_deltas": _number(delta, "order", int, 2),
        "cmvn": _flag(cmvn, "use_cmvn", REQUIRED),
    }
    return {"front_end": front_end, front_end: options, "input": feature}, [feature]


def _with_new_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """gamma and beta, as TensorFlow calls the weight and bias of a LayerNorm, by their names in torch."""
    found = {}
    for name, weight in weights.items():
        module, _, kind = name.rpartition(".")
        found[f"{module}.{NORMS.get(kind, kind)}"] = weight
    return found


def _first_layer_only(weights: dict[str, Tensor], num_layers: int, source: Any) -> dict[str, Tensor]:
    """Of layers that share their weights, which the file holds under the name of each, the first."""
    layers = {int(match[1]) for name in weights if (match := re.match(r"encoder\.layer\.(\d{1,9})\.", name))}
    if layers != set(range(num_layers)):
        raise UserError(f"{source}: s3prl's, with weights of {len(layers)} layers for num_hidden_layers {num_layers}")
    found = {}
    for name, weight in weights.items():
        first = re.sub(r"^encoder\.layer\.\d+\.", "encoder.layer.0.", name)
        if first != name and not _equal(weight, weights.get(first)):
            raise UserError(
                f"{source}: its layers share their weights (share_layer), but {name} differs from {first}"
            )
        if first == name:
            found[name] = weight
    return found


def _equal(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and (one.shape, one.dtype) == (other.shape, other.dtype) and torch.equal(one, other)


def _section(plain: Plain, key: str) -> Plain:
    value = plain.get(key)
    if not isinstance(value, dict):
        raise _Misfit(f"its configuration has no section {key}")
    return value


def _value(plain: Plain, key: str, default: Any) -> Any:
    value = plain.get(key, default)
    if value is REQUIRED:
        raise _Misfit(f"its configuration has no {key}")
    return value


def _number(plain: Plain, key: str, kind: Callable[[Any], Any], default: Any = REQUIRED) -> Any:
    """A number, which old configurations may hold as text ("1e-12")."""
    value = _value(plain, key, default)
    try:
        number = kind(value)
        exact = not isinstance(value, bool) and number == float(value)
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact:
        raise _Misfit(f"{key} is {shown(value)}, not a{' whole' if kind is int else ''} number")
    return number


def _flag(plain: Plain, key: str, default: Any) -> bool:
    value = _value(plain, key, default)
    if not isinstance(value, bool):
        raise _Misfit(f"{key} is {shown(value)}, neither true nor false")
    return value


def _choice(plain: Plain, key: str, choices: dict[str, str]) -> str:
    value = _value(plain, key, REQUIRED)
    if not isinstance(value, str) or value not in choices:
        raise _Misfit(f"{key} is {shown(value)}; those that are supported are {', '.join(choices)}")
    return choices[value]


def _expect(plain: Plain, key: str, value: float) -> None:
    if plain.get(key, value) != value:
        raise _Misfit(f"{key} is {shown(plain[key])}, which cannot be set here; it must be {value}")
