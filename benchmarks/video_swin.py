"""Video Swin beside torchvision's on the same weights and clip, by turns: seconds, and how far the features differ.

python benchmarks/video_swin.py                                    # base, one clip of 32 frames of 224
python benchmarks/video_swin.py --model tiny --frames 8 --size 112 --steps 3
"""

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from report import Report, Row, autocast, build_parser, clock, count_flop, prepare
from torch import Tensor
from torchvision.models import video

from mynah.upstream.vidswin_albert.swin_weights import convert_state_dict
from mynah.upstream.vidswin_albert.video_swin import SIZES, VideoSwin

PEERS = {"tiny": video.swin3d_t, "small": video.swin3d_s, "base": video.swin3d_b}


def main() -> None:
    parser = build_parser(__doc__, steps=5)
    parser.add_argument("--model", choices=tuple(PEERS), default="base")
    parser.add_argument("--batch-size", type=int, default=1, help="clips")
    parser.add_argument("--frames", type=int, default=32, help="of each clip")
    parser.add_argument("--size", type=int, default=224, help="pixels of a frame's side")
    parser.add_argument("--train", action="store_true", help="forward and backward, in place of forward alone")
    arguments = prepare(parser)
    peer = PEERS[arguments.model]().to(arguments.device).eval()
    swin = VideoSwin(SIZES[arguments.model]).to(arguments.device).eval()
    swin.load_state_dict(convert_state_dict(peer.state_dict(), swin.config, "torchvision"), strict=True)
    side = arguments.size
    clips = torch.randn(arguments.batch_size, arguments.frames, 3, side, side, device=arguments.device)

    def run(features: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.inference_mode(not arguments.train), autocast(arguments):
            output = features(clips)
            if arguments.train:
                output.float().square().mean().backward()
            return output.detach()

    report = Report(arguments)
    nets = {"mynah": lambda: run(swin), "torchvision": lambda: run(lambda x: features_of(peer, x))}
    outputs = [step() for step in nets.values()]  # and so both are warm
    seconds = measure_by_turns(nets, arguments.steps, arguments.device)
    kind = "forward and backward" if arguments.train else "forward"
    for name, step in nets.items():
        gflop, middle = count_flop(step) / 1e9, median(seconds[name])
        what = f"{arguments.model}, {arguments.batch_size} x {arguments.frames} x {side}, {kind}, {name}"
        report.add(Row(what, middle, gflop=gflop, gflops=gflop / middle))
    ratios = [theirs / mine for mine, theirs in zip(*seconds.values(), strict=True)]
    print(f"torchvision takes {median(ratios):.2f} times as long (from {min(ratios):.2f} to {max(ratios):.2f})")
    print(f"features differ by at most {(outputs[0] - outputs[1]).abs().max():.1e}")
    report.print()


def measure_by_turns(nets: dict[str, Callable[[], Any]], steps: int, device: str) -> dict[str, list[float]]:
    """Seconds of each, one after the other in every repetition: a machine is not equally fast at all times."""
    seconds = {name: [] for name in nets}
    for _ in range(steps):
        for name, step in nets.items():
            seconds[name].append(clock(step, device))
    return seconds


def features_of(peer: torch.nn.Module, clips: Tensor) -> Tensor:
    """torchvision's features before pooling, as ours: (B, T', H', W', D)."""
    return peer.norm(peer.features(peer.pos_drop(peer.patch_embed(clips.transpose(1, 2)))))


if __name__ == "__main__":
    main()
