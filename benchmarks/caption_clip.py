"""How long the full-size model takes to caption a video file, step by step, and the memory that it needs.

    python benchmarks/caption_clip.py clip.mp4

The weights are random, so the words are too; time and memory are those of trained ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import REPOSITORY, Report, Row, autocast, build_parser, clock, load_upstream, peak_mib, prepare

from mynah.utility.albert.generation import GenerationConfig, generate
from mynah.utility.albert.tokenizer import AlbertTokenizer
from mynah.utility.video.files import read_clip

WORDS = 20


def main() -> None:
    parser = build_parser(__doc__, steps=1)
    parser.add_argument("video", type=Path, help="the file to caption")
    parser.add_argument("--num-frames", type=int, default=32)
    parser.add_argument("--num-beams", type=int, default=1)
    arguments = prepare(parser)
    # Any word pieces will do for random words; these are those of the README.
    tokenizer = AlbertTokenizer.train((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines(), 1000)
    options = {"num_frames": arguments.num_frames, "albert.vocab_size": 30000}
    upstream = load_upstream("vidswin_albert", **options).to(arguments.device).eval()
    config = GenerationConfig(max_length=WORDS, min_length=WORDS, num_beams=arguments.num_beams)
    report = Report(arguments)
    with torch.no_grad(), autocast(arguments):
        for _ in range(arguments.steps):
            clip = timed(report, "decoding", read_clip, arguments.video, arguments.num_frames, 224)
            states = timed(report, "Video Swin", upstream, [clip], num_hidden_states=1)["hidden_states"][0]
            captioner = upstream.model.captioner
            [[caption]] = timed(report, f"{WORDS} words", generate, captioner, states, None, config, tokenizer)
    report.print()
    print(f"{len(caption.ids)} word pieces, the first: {tokenizer.decode([each % 1000 for each in caption.ids[:5]])}")


def timed(report: Report, what: str, step: Callable[..., Any], *given: Any, **options: Any) -> Any:
    """The step's result; its time, and the most memory held until its end, become a row."""
    results = []
    seconds = clock(lambda: results.append(step(*given, **options)), report.arguments.device)
    report.add(Row(what, seconds, peak_mib=peak_mib(report.arguments.device)))
    return results[0]


if __name__ == "__main__":
    main()
