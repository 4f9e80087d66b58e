"""Models of Hugging Face for the upstreams that read them: from a folder or the hub, and built again from values."""

import copy
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mynah.utility.configuration.sections import shown
from mynah.utility.errors import UserError, is_lack_of_memory
from mynah.utility.experiments.integrity import not_finite, some_of

SECONDS_TO_CONNECT = 10
NO_CONNECTION = ("ConnectError", "ConnectionError")

log = logging.getLogger("mynah")


class PublishedModel:
    """A model's folder, or its id in the hub, and what is read of it; see `reading`.

    Of the hub, files are downloaded once into its client's own cache; where it cannot be reached, the cache alone is
    used. Only safetensors and weights that torch loads without code are read; code beside them is never run.
    """

    def __init__(self, upstream: str, given: str):
        self.upstream, self.given = upstream, given
        place = Path(given).expanduser()
        if place.is_file():
            raise UserError(f"{given}: a file; {upstream} takes the folder that holds config.json and the weights")
        if not place.is_dir() and (place.is_absolute() or len(place.parts) > 2):
            raise UserError(f"{given}: no such folder; {upstream} takes a model's folder, or its id in the hub")
        self.transformers = transformers_package(upstream)
        self.name = str(place) if place.is_dir() else given
        cached_only = not place.is_dir() and not _is_reachable(given)
        self.options = {"local_files_only": cached_only, "trust_remote_code": False}

    def config(self, families: Collection[str]) -> Any:
        """Its configuration. Raises UserError where its model_type is none of `families`."""
        found = self.transformers.AutoConfig.from_pretrained(self.name, **self.options)
        check_family(found.model_type, families, self.given, self.upstream)
        return found

    def model(self, config: Any, unused: Sequence[str] = (), changed: str = "") -> nn.Module:
        """The model in float32. unused: prefixes of weights that may be missing, as no feature depends on them.

        changed: the option that made `config` another one than the model's own. Raises UserError where other weights
        are missing, have other shapes than the configuration gives them, or are NaN or infinite.
        """
        try:
            model, report = self.transformers.AutoModel.from_pretrained(
                self.name, config=config, dtype=torch.float32, output_loading_info=True, **self.options
            )
        except RuntimeError as error:
            if "mismatched_sizes" not in str(error):
                raise
            cause = f"with {changed}" if changed else "by its config.json"
            raise UserError(
                f"{self.given}: {cause} some of its weights would have other shapes than they have"
            ) from error
        if missing := sorted(key for key in report["missing_keys"] if not key.startswith(tuple(unused))):
            raise UserError(
                f"{self.given}: its weights are not those of its config.json: {len(missing)} of the "
                f"{config.model_type} are missing ({some_of(missing)}) and would be random; give another folder"
            )
        if wrong := not_finite(model.state_dict()):
            raise UserError(f"{self.given}: holds weights that are NaN or infinite ({some_of(wrong)})")
        return model

    def text(self, *names: str) -> str | None:
        """The first of these files beside the model that there is; None for none of them."""
        for name in names:
            try:
                found = self.transformers.utils.cached_file(
                    self.name, name, local_files_only=self.options["local_files_only"]
                )
            except OSError:
                continue
            return Path(found).read_text(encoding="utf-8", errors="replace")
        return None

    def values(self, *names: str) -> dict[str, Any] | None:
        """The first of these JSON files beside the model that there is. Raises UserError where it is no object."""
        text = self.text(*names)
        if text is None:
            return None
        try:
            found = json.loads(text)
        except ValueError as error:
            raise UserError(f"{self.given}: its {' or '.join(names)} cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise UserError(f"{self.given}: its {' or '.join(names)} holds {shown(found)} instead of an object")
        return found

    def tell(self, model: nn.Module, kind: str) -> None:
        """Log what was loaded, and the licence that the model's card names."""
        size = sum(weight.numel() for weight in model.parameters()) / 1e6
        log.info("%s: loaded %s (%s, %.2f M parameters)", self.upstream, self.given, kind, size)
        for line in (self.text("README.md") or "")[:5000].splitlines():
            if line.startswith("license:"):
                log.info("%s: the model's licence is %s", self.upstream, line.partition(":")[2].strip())
                return


@contextmanager
def reading(upstream: str, given: str) -> Iterator[PublishedModel]:
    """Within it transformers is quiet, and whatever it raises becomes a UserError.

    given: a model's folder, or its id in the hub. Raises UserError where transformers is missing.
    """
    published = PublishedModel(upstream, given)
    told = published.transformers.logging
    before = told.get_verbosity()
    told.set_verbosity_error()
    try:
        yield published
    except UserError:
        raise
    except Exception as error:  # the network, the hub's client, safetensors and each model raise their own
        if is_lack_of_memory(error):
            raise
        raise UserError(
            f"{given}: not a model of Hugging Face that can be read ({first_line(error)}); give a folder with "
            "config.json and the weights, or an id in the hub"
        ) from error
    finally:
        told.set_verbosity(before)


def config_of(upstream: str, plain: dict[str, Any], families: Collection[str]) -> Any:
    """A configuration from the plain values of a config.json, as `plain_values` gives them.

    Raises UserError where they make none, or its model_type is none of `families`.
    """
    plain = copy.deepcopy(plain)
    kind = plain.pop("model_type", None)
    check_family(kind, families, "model_config=", upstream)
    with _building(upstream, kind):
        return transformers_package(upstream).AutoConfig.for_model(kind, **plain)


def build_model(upstream: str, config: Any) -> nn.Module:
    """A model of that configuration with random weights in float32. Raises UserError where there can be none."""
    with _building(upstream, config.model_type):
        return transformers_package(upstream).AutoModel.from_config(config, dtype=torch.float32)


def check_family(kind: Any, families: Collection[str], given: str, upstream: str) -> None:
    """Raise UserError where a model_type is none of `families`."""
    if kind not in families:
        raise UserError(f"{given}: its model_type is {shown(kind)}; {upstream} knows {', '.join(families)}")


def transformers_package(upstream: str) -> Any:
    """The package, which takes seconds to import and is needed for these upstreams alone."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            f"{upstream} needs the package 'transformers', which is not installed; install it (pip install "
            "transformers or pip install 'mynah[hub]')"
        ) from error
    return transformers


def plain_values(value: Any) -> Any:
    """Nested values, such as a configuration's `to_dict()`, as a checkpoint may hold them."""
    if isinstance(value, dict):
        return {str(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.tolist() if hasattr(value, "tolist") else str(value)


@contextmanager
def _building(upstream: str, kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each model's constructor raises its own
        if is_lack_of_memory(error):
            raise
        raise UserError(f"{upstream}: no {kind} can be built from these values: {first_line(error)}") from error


def _is_reachable(model_id: str) -> bool:
    """Whether the hub can be connected to; where not, its client would try for half a minute for each file."""
    import huggingface_hub

    try:
        huggingface_hub.HfApi().model_info(model_id, timeout=SECONDS_TO_CONNECT)
    except Exception as error:  # of which HTTP client they are depends on its version
        return not (isinstance(error, ConnectionError) or type(error).__name__ in NO_CONNECTION)
    return True


def first_line(error: Exception) -> str:
    """The first line of what an error says, at most 200 characters of it; its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
