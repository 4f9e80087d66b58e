"""What sharing weights saves: BERT beside ALBERT, as captioning models of the same shape with random weights.

Parameters; time and peak memory of a training step and of captioning one clip. Each is measured in a process of its
own, so that its peak memory is its own, and only that of Python and torch is in all of them.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median

import torch
import torch.nn.functional as F
from caption_generation import BASE, SMALL, Vocabulary
from report import autocast, build_parser, clock, peak_mib, prepare

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.generation import GenerationConfig, generate
from mynah.utility.training.allocator import keep_freed_memory
from mynah.utility.training.optimization import build_optimizer, decay_groups

CAPTION_LENGTH = 50
MASKED_SHARE = 0.5


@dataclass
class Measurement:
    what: str
    seconds: float
    """Of one repetition, the median of several."""
    peak_mib: float
    """Most memory held: by the process (its resident set) on a CPU, by torch on a GPU."""
    before_mib: float
    """What of it was held before there was a model."""


def main() -> None:
    parser = build_parser(__doc__, steps=3)
    parser.add_argument("--clips", type=int, default=2, help="clips of a training step")
    parser.add_argument("--positions", type=int, default=784, help="video tokens of a clip")
    parser.add_argument("--words", type=int, default=20, help="word pieces of the caption of one clip")
    parser.add_argument("--small", action="store_true", help="tiny models, to see that the program runs")
    arguments = prepare(parser)
    models = SMALL if arguments.small else BASE
    measured = {name: [measure_apart(what, config, arguments) for what in TASKS] for name, config in models.items()}
    parameters = {name: count_parameters(config, arguments) for name, config in models.items()}
    print_table(measured, parameters)
    machine = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{arguments.threads} CPU threads"
    content = {
        "program": arguments.program,
        "options": {key: value for key, value in vars(arguments).items() if key != "program"},
        "machine": machine,
        "torch": torch.__version__,
        "parameters": parameters,
        "rows": {name: [asdict(measurement) for measurement in rows] for name, rows in measured.items()},
    }
    print(json.dumps(content, default=str))


def measure_apart(what: str, config: AlbertConfig, arguments: argparse.Namespace) -> Measurement:
    """`measure` in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, what, config, arguments).result()


def measure(what: str, config: AlbertConfig, arguments: argparse.Namespace) -> Measurement:
    """Once to warm up, then --steps times by the clock."""
    if arguments.memory_kept:
        keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    before = peak_mib(arguments.device)
    step = TASKS[what](config, arguments)
    step()
    seconds = [clock(step, arguments.device) for _ in range(arguments.steps)]
    return Measurement(what, median(seconds), peak_mib(arguments.device), before)


def training_step(config: AlbertConfig, arguments: argparse.Namespace) -> Callable[[], None]:
    """A batch of clips with a caption each, forward and backward, gradient clipping, and the optimizer's step."""
    device = arguments.device
    vocabulary = Vocabulary(config.vocab_size)
    model = AlbertForImageCaptioning(config, arguments.positions).to(device).train()
    optimizer = build_optimizer("adamw", decay_groups(model, 1e-5, 0.05, "model"), (0.9, 0.999), 1e-8)
    shape = (arguments.clips, 1, CAPTION_LENGTH)
    words = torch.randint(5, config.vocab_size, shape, device=device)
    targets = torch.rand(shape, device=device) < MASKED_SHARE
    features = torch.randn(arguments.clips, arguments.positions, config.img_feature_dim, device=device)

    def step() -> None:
        masked = words.masked_fill(targets, vocabulary.mask_id)
        with autocast(arguments):
            embedded = model.embed_video(features)
            logits = model(masked, torch.ones_like(targets), embedded, targets=targets)
            loss = F.cross_entropy(logits.float(), words[targets]) + model.sparsity()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def captioning(config: AlbertConfig, arguments: argparse.Namespace) -> Callable[[], None]:
    """The words of one clip, greedily, with keys and values remembered."""
    model = AlbertForImageCaptioning(config, arguments.positions).to(arguments.device).eval()
    features = torch.randn(1, arguments.positions, config.img_feature_dim, device=arguments.device)
    settings = GenerationConfig(max_length=arguments.words, min_length=arguments.words)

    @torch.no_grad()
    def caption() -> None:
        with autocast(arguments):
            generate(model, model.embed_video(features), None, settings, Vocabulary(config.vocab_size))

    return caption


TASKS = {"training step": training_step, "captioning one clip": captioning}


def count_parameters(config: AlbertConfig, arguments: argparse.Namespace) -> int:
    with torch.device("meta"):
        model = AlbertForImageCaptioning(config, arguments.positions)
    return sum(parameter.numel() for parameter in model.parameters())


def print_table(measured: dict[str, list[Measurement]], parameters: dict[str, int]) -> None:
    """GitHub's Markdown, so that it can be pasted into the documentation."""
    header = ["", "parameters"]
    for what in TASKS:
        header += [f"{what}, s", "peak MiB"]
    print(f"| {' | '.join(header)} |")
    print(f"| :--- |{' ---: |' * (len(header) - 1)}")
    for name, rows in measured.items():
        cells = [f"{row.seconds:.3f} | {row.peak_mib:.0f}" for row in rows]
        print(f"| {name} | {parameters[name] / 1e6:.1f} M | {' | '.join(cells)} |")
    before = [row.before_mib for rows in measured.values() for row in rows]
    print(f"of the memory, {max(before):.0f} MiB were held before there was a model")


if __name__ == "__main__":
    main()
