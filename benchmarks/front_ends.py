"""How fast waveforms become features, for each of the hand-made ones."""

import torch
from report import Report, add_batch_options, autocast, build_parser, load_upstream, noise, prepare

NAMES = ("fbank", "mfcc", "spectrogram", "mel", "linear")


def main() -> None:
    parser = build_parser(__doc__, steps=10)
    add_batch_options(parser, batch_size=8)
    arguments = prepare(parser)
    signals = noise(arguments)
    report = Report(arguments)
    for name in NAMES:
        expert = load_upstream(name).to(arguments.device).eval()
        with torch.inference_mode(), autocast(arguments):
            audio_seconds = arguments.batch_size * arguments.seconds
            report.measure(name, lambda expert=expert: expert(signals), audio_seconds)
    report.print()


if __name__ == "__main__":
    main()
