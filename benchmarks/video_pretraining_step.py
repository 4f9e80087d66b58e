"""How fast a pretraining step of vidswin_albert is: from frames and captions to changed weights, in full size."""

import argparse

import torch
import torch.nn.functional as F
from report import Report, autocast, build_parser, load_upstream, prepare

from mynah.utility.training.optimization import build_optimizer, decay_groups
from mynah.utility.video.frames import normalize_frames

CAPTION_LENGTH = 50
MASKED_SHARE = 0.5


def main() -> None:
    parser = build_parser(__doc__, steps=3)
    parser.add_argument("--batch-size", type=int, default=2, help="clips")
    parser.add_argument("--frames", type=int, default=8, help="of each clip")
    parser.add_argument("--captions", type=int, default=1, help="of each clip")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in Video Swin")
    arguments = prepare(parser)
    step = Step(arguments)
    what = f"{arguments.batch_size} clips x {arguments.frames} frames x 224, {arguments.precision}"
    report = Report(arguments)
    report.measure(what, step)
    report.print()


class Step:
    """One batch forward and backward, gradient clipping, and the optimizer's step."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments = arguments
        options = {"num_frames": arguments.frames, "swin.gradient_checkpointing": arguments.checkpointing}
        self.model = load_upstream("vidswin_albert", **options).model.to(arguments.device).train()
        batch, captions = arguments.batch_size, arguments.captions
        generator = torch.Generator().manual_seed(0)
        shape = (batch, captions, CAPTION_LENGTH)
        frames = torch.randint(256, (batch, arguments.frames, 3, 224, 224), dtype=torch.uint8, generator=generator)
        words = torch.randint(5, self.model.config.albert.vocab_size, shape, generator=generator)
        targets = torch.rand(shape, generator=generator) < MASKED_SHARE
        self.frames, self.words, self.targets = (x.to(arguments.device) for x in (frames, words, targets))
        self.valid = torch.ones_like(self.targets)
        groups = decay_groups(self.model, 1e-5, 0.05, "model")
        self.optimizer = build_optimizer("adamw", groups, (0.9, 0.999), 1e-8)

    def __call__(self) -> None:
        with autocast(self.arguments):
            logits = self.model(normalize_frames(self.frames), self.words, self.valid, self.targets)
            loss = F.cross_entropy(logits.float(), self.words[self.targets])
            loss = loss + 0.5 * self.model.captioner.sparsity()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()


if __name__ == "__main__":
    main()
