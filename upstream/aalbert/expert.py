"""Audio ALBERT behind the upstream contract, and its pretraining."""

from functools import partial
from pathlib import Path
from typing import Any

from mynah.upstream.acoustic import load_acoustic_upstream
from mynah.utility.acoustic.config import AcousticPretrainConfig as PretrainConfig

from .model import AudioAlbert

__all__ = ["PretrainConfig", "build_pretraining", "load"]

load = partial(load_acoustic_upstream, "aalbert", AudioAlbert, Path(__file__).with_name("pretrain_config.yaml"))


def build_pretraining(config: PretrainConfig, experiment: Any) -> Any:
    """The LightningModule that pretrains Audio ALBERT as `config` says and writes to `experiment`."""
    from mynah.utility.acoustic.pretraining import build_acoustic_pretraining  # training only: imports lightning

    return build_acoustic_pretraining("aalbert", AudioAlbert, config, experiment)
