"""How fast an upstream turns waveforms into its hidden states, frozen, as downstream training uses it."""

import torch
from report import Report, add_batch_options, autocast, build_parser, load_upstream, noise, prepare


def main() -> None:
    parser = build_parser(__doc__, steps=10, upstream="aalbert")
    add_batch_options(parser, batch_size=8)
    arguments = prepare(parser)
    expert = load_upstream(arguments.upstream).to(arguments.device).eval()
    signals, report = noise(arguments), Report(arguments)
    with torch.inference_mode(), autocast(arguments):
        what = f"{arguments.upstream}, {arguments.batch_size} x {arguments.seconds:g} s"
        report.measure(what, lambda: expert(signals), arguments.batch_size * arguments.seconds)
    report.print()


if __name__ == "__main__":
    main()
