"""How fast a pretraining step is: from waveforms to changed weights, in a full configuration of the plugin."""

import argparse

import numpy as np
import torch
from report import (
    REPOSITORY,
    Report,
    add_batch_options,
    autocast,
    build_parser,
    load_upstream,
    noise,
    prepare,
)
from torch import Tensor

from mynah.utility.acoustic.config import AcousticConfig, AcousticPretrainConfig
from mynah.utility.acoustic.masking import MaskPlan, batch_mask_plans, draw_mask_plan
from mynah.utility.acoustic.model import AcousticModel
from mynah.utility.configuration.load import load_config, to_plain
from mynah.utility.configuration.recipes import find_recipe
from mynah.utility.nn.padding import pad_signals
from mynah.utility.training.optimization import build_optimizer, decay_groups


def main() -> None:
    parser = build_parser(__doc__, steps=5, upstream="aalbert")
    add_batch_options(parser, batch_size=12)
    parser.add_argument("--compile", action="store_true", help="the encoder by torch.compile")
    parser.add_argument("-c", dest="config", help="a configuration, or the name of a recipe (default: the base's)")
    parser.add_argument("-o", dest="overrides", nargs="+", default=[], help="KEY=VALUE of the configuration")
    arguments = prepare(parser)
    base = REPOSITORY / "upstream" / arguments.upstream / "pretrain_config.yaml"
    file, _ = find_recipe(arguments.config, base)
    config = load_config(AcousticPretrainConfig, files=[file], overrides=arguments.overrides)
    plain = to_plain(config)
    sections = {name: plain[name] for name in AcousticConfig.model_fields}
    model = load_upstream(arguments.upstream, config=sections, random_weights=True).model
    model = model.to(arguments.device).train()
    if arguments.compile:
        model.encoder.compile()
    step = Step(model, config, arguments)
    name = " ".join([arguments.upstream, *filter(None, [arguments.config])])
    what = f"{name}, {arguments.batch_size} x {arguments.seconds:g} s, {arguments.precision}"
    what += ", compiled" if arguments.compile else ""
    what += "".join(f", {each}" for each in arguments.overrides)
    report = Report(arguments)
    report.measure(what, step, arguments.batch_size * arguments.seconds)
    report.print()


class Step:
    """One batch forward and backward, gradient clipping, and the optimizer's step after every batch.

    The aalbert recipe takes the optimizer's step after four batches only, so it is a little faster than this.
    """

    def __init__(self, model: AcousticModel, config: AcousticPretrainConfig, arguments: argparse.Namespace):
        self.model, self.arguments = model, arguments
        self.wavs, self.lengths = pad_signals(noise(arguments), torch.device(arguments.device))
        self.plan = draw_plans(model, self.lengths, config).to(torch.device(arguments.device))
        optimizer = config.optimizer
        groups = decay_groups(model, optimizer.lr, optimizer.weight_decay, "model")
        self.optimizer = build_optimizer(optimizer.name, groups, tuple(optimizer.betas), optimizer.eps)
        self.max_norm = config.trainer["gradient_clip_val"]

    def __call__(self) -> None:
        with autocast(self.arguments):
            loss = self.model.loss(self.wavs, self.lengths, self.plan)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.max_norm)
        self.optimizer.step()


def draw_plans(model: AcousticModel, lengths: Tensor, config: AcousticPretrainConfig) -> MaskPlan:
    """What the loader's processes draw for a batch."""
    generator = np.random.default_rng(0)
    plans = [
        draw_mask_plan(model.positions.count(samples), model.num_input_bins, config.masking, generator)
        for samples in lengths.tolist()
    ]
    return batch_mask_plans(plans)


if __name__ == "__main__":
    main()
