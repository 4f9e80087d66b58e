"""How long captioning a clip takes: from embedded video tokens to words, with keys and values remembered or not.

Random weights, and captions of exactly --words words, so that every row does the same work.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from report import Report, Row, autocast, build_parser, clock, peak_mib, prepare

from mynah.utility.albert.captioning import AlbertForImageCaptioning
from mynah.utility.albert.config import AlbertConfig
from mynah.utility.albert.generation import GenerationConfig, generate

BASE = {
    "ALBERT base": AlbertConfig(),
    "BERT base": AlbertConfig(
        model_type="bert", num_hidden_groups=12, embedding_size=768, vocab_size=30522, hidden_act="gelu"
    ),
}
TINY = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 2}
SMALL = {
    "ALBERT small": AlbertConfig(**TINY),
    "BERT small": AlbertConfig(**TINY, model_type="bert", num_hidden_groups=2, embedding_size=64),
}
SEARCHES = {
    "greedy, cached": {},
    "beam 4, cached": {"num_beams": 4},
    "greedy, uncached": {"use_cache": False},
}


@dataclass(frozen=True)
class Vocabulary:
    """ALBERT's special word pieces; a benchmark needs no tokenizer."""

    vocab_size: int
    pad_id: int = 0
    cls_id: int = 2
    sep_id: int = 3
    mask_id: int = 4
    special_ids: frozenset[int] = frozenset(range(5))


def main() -> None:
    parser = build_parser(__doc__, steps=3)
    parser.add_argument("--clips", type=int, default=1, help="clips in a batch")
    parser.add_argument("--positions", type=int, default=784, help="video tokens of a clip")
    parser.add_argument("--words", type=int, default=20, help="length of the captions")
    parser.add_argument("--cached-only", action="store_true", help="leave out the slow rows")
    parser.add_argument("--small", action="store_true", help="tiny models, to see that the program runs")
    arguments = prepare(parser)
    report = Report(arguments)
    for name, config in (SMALL if arguments.small else BASE).items():
        model = AlbertForImageCaptioning(config, arguments.positions).to(arguments.device).eval()
        embedded = torch.randn(arguments.clips, arguments.positions, config.hidden_size, device=arguments.device)
        for search, options in SEARCHES.items():
            if arguments.cached_only and not options.get("use_cache", True):
                continue
            generation = GenerationConfig(max_length=arguments.words, min_length=arguments.words, **options)
            vocabulary = Vocabulary(config.vocab_size)
            step = partial(generate, model, embedded, None, generation, vocabulary)
            report.add(measure(f"{name}, {search}", step, arguments))
    report.print()


def measure(what: str, step: partial, arguments: argparse.Namespace) -> Row:
    """Once to warm up, then --steps times by the clock."""
    if arguments.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with autocast(arguments):
        step()
        seconds = median([clock(step, arguments.device) for _ in range(arguments.steps)])
    return Row(what, seconds, peak_mib=peak_mib(arguments.device))


if __name__ == "__main__":
    main()
