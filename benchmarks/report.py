"""What every benchmark does: its options, its timing, and the table and JSON line at its end.

Importing it puts the repository on the path, so that the programs run as `python benchmarks/front_ends.py`.
"""

import argparse
import json
import logging
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from mynah.plugins import get_plugin, import_plugin  # noqa: E402
from mynah.utility.audio.files import SAMPLE_RATE  # noqa: E402
from mynah.utility.training.allocator import keep_freed_memory  # noqa: E402  (needs the path)

MATRIX_SIZE = 4096
PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}


@dataclass
class Row:
    """One measurement; what does not apply is None."""

    what: str
    seconds: float
    """Of one repetition, the median of several."""
    audio_seconds_per_second: float | None = None
    gflop: float | None = None
    """Of one repetition: matrix products, convolutions and attention, as torch's flop counter has it."""
    gflops: float | None = None
    """Billions of operations per second."""
    matrix_gflops: float | None = None
    """Of the matrix product, measured between the repetitions; the median."""
    share: float | None = None
    """Of the matrix product's rate: the median over repetitions, each against the product that followed it."""
    peak_mib: float | None = None
    """Most memory held so far: by the process (its resident set) on a CPU, by torch on a GPU."""


def build_parser(description: str, *, steps: int, upstream: str | None = None) -> argparse.ArgumentParser:
    """The options that all programs share; `upstream`: the default of --upstream, None for no such option."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if upstream is not None:
        parser.add_argument("--upstream", default=upstream, metavar="NAME", help="which one to measure")
    parser.add_argument("--steps", type=int, default=steps, help="repetitions, of which the median is taken")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="32-true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of torch")
    parser.add_argument(
        "--no-malloc-tuning", action="store_true", help="let glibc hand freed buffers back to the system"
    )
    return parser


def add_batch_options(parser: argparse.ArgumentParser, *, batch_size: int, seconds: float = 10.0) -> None:
    """Options of programs that work on batches of audio."""
    parser.add_argument("--batch-size", type=int, default=batch_size, help="utterances")
    parser.add_argument("--seconds", type=float, default=seconds, help="of each utterance")


def prepare(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line and set up the process as it says; to be called first."""
    arguments = parser.parse_args()
    arguments.program = Path(parser.prog).stem
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here")
    arguments.memory_kept = not arguments.no_malloc_tuning and keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    logging.getLogger("mynah").setLevel(logging.ERROR)  # no warnings that the weights are random: they may be
    return arguments


def load_upstream(name: str, **options: Any) -> torch.nn.Module:
    """The upstream of that name from its hub entry, with random weights."""
    return getattr(import_plugin(get_plugin("upstream", name), "hubconf"), name)(**options)


def noise(arguments: argparse.Namespace) -> list[torch.Tensor]:
    """A batch of waveforms of the size that the options ask for; what they hold does not matter to the time."""
    samples = round(arguments.seconds * SAMPLE_RATE)
    return [0.1 * torch.randn(samples, device=arguments.device) for _ in range(arguments.batch_size)]


def autocast(arguments: argparse.Namespace) -> AbstractContextManager:
    """The precision that was asked for, as Lightning's plugin of that name sets it."""
    enabled = arguments.precision == "bf16-mixed"
    return torch.autocast(arguments.device, dtype=torch.bfloat16, enabled=enabled)


class Report:
    """Measures, and prints what it measured.

    The matrix product that everything is compared with runs in a process of its own, so that its memory does not
    count, and after every repetition, because a shared machine is not equally fast at all times.
    """

    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.rows = arguments, []
        self.matrix_process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def measure(self, what: str, step: Callable[[], Any], audio_seconds: float | None = None) -> None:
        """Run `step` once to warm up, `--steps` times by the clock, and once to count its operations."""
        device = self.arguments.device
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step()
        seconds, rates = [], []
        for _ in range(self.arguments.steps):
            seconds.append(clock(step, device))
            rates.append(self.matrix_gflops(self.arguments.precision))
        peak = peak_mib(device)  # before the counter, which takes memory of its own
        gflop = count_flop(step) / 1e9
        shares = [gflop / taken / rate for taken, rate in zip(seconds, rates, strict=True)]
        self.add(
            Row(
                what=what,
                seconds=median(seconds),
                audio_seconds_per_second=audio_seconds and audio_seconds / median(seconds),
                gflop=gflop,
                gflops=gflop / median(seconds),
                matrix_gflops=median(rates),
                share=median(shares),
                peak_mib=peak,
            )
        )

    def add(self, row: Row) -> None:
        """Add a row, and say so: the table comes at the end alone."""
        self.rows.append(row)
        print(f"{row.what}: {row.seconds:.4f} s", flush=True)

    def matrix_gflops(self, precision: str) -> float:
        """Billions of operations per second of a square matrix product: what the machine can do just now."""
        arguments = self.arguments
        measuring = self.matrix_process.submit(
            measure_matrix_gflops, PRECISIONS[precision], arguments.device, arguments.threads
        )
        return measuring.result()

    def print(self) -> None:
        """Print the table and, on the last line, the same and more as JSON."""
        arguments = self.arguments
        precisions = dict.fromkeys(("32-true", arguments.precision))
        rates = {name: median([self.matrix_gflops(name) for _ in range(3)]) for name in precisions}
        machine = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{arguments.threads} CPU threads"
        print(_table(self.rows))
        for name, rate in rates.items():
            print(f"matrix product {MATRIX_SIZE}, {name}: {rate:.1f} GFLOP/s at the end, on {machine}")
        content = {
            "program": arguments.program,
            "options": {key: value for key, value in vars(arguments).items() if key != "program"},
            "machine": machine,
            "torch": torch.__version__,
            "matrix_gflops": rates,
            "rows": [asdict(row) for row in self.rows],
        }
        print(json.dumps(content, default=str))


def clock(step: Callable[[], Any], device: str) -> float:
    """Seconds that one call takes, the GPU's work included."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def count_flop(step: Callable[[], Any]) -> int:
    """Floating-point operations of one call.

    torch's counter knows the fused attention of GPUs but not that of CPUs, which is counted here by the same
    formulas: two products forward, five backward (one of them computes the attention maps again).
    """
    from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

    aten = torch.ops.aten
    cpu_attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4])
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=cpu_attention) as counter:
        step()
    return counter.get_total_flops()


def peak_mib(device: str) -> float:
    """The most memory held so far, in MiB."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere


def measure_matrix_gflops(dtype: torch.dtype, device: str, threads: int) -> float:
    """Billions of operations per second of one matrix product, after another to warm up."""
    torch.set_num_threads(threads)
    left, right, product = (torch.randn(MATRIX_SIZE, MATRIX_SIZE, device=device).to(dtype) for _ in range(3))
    calls = 20 if device == "cuda" else 1

    def multiply() -> None:
        for _ in range(calls):
            torch.mm(left, right, out=product)

    multiply()
    return calls * 2 * MATRIX_SIZE**3 / clock(multiply, device) / 1e9


def _table(rows: Sequence[Row]) -> str:
    """GitHub's Markdown, so that it can be pasted into the documentation."""
    header = ["", "seconds", "audio s / s", "GFLOP", "GFLOP/s", "matrix product", "share", "peak MiB"]
    lines = [
        [
            row.what,
            f"{row.seconds:.4f}",
            _shown(row.audio_seconds_per_second, ".1f"),
            _shown(row.gflop, ".2f"),
            _shown(row.gflops, ".1f"),
            _shown(row.matrix_gflops, ".1f"),
            _shown(row.share, ".1%"),
            _shown(row.peak_mib, ".0f"),
        ]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [header, *lines]) for column in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    aligned = [
        [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        for line in [header, rule, *lines]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in aligned)


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
