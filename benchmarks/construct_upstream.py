"""How long an upstream takes to be there, through torch.hub from this checkout, torch being imported already."""

import statistics

import torch
from report import REPOSITORY, Row, build_parser, clock, peak_mib, prepare, report


def main() -> None:
    parser = build_parser(__doc__, steps=5, upstream="aalbert")
    arguments = prepare(parser)

    def construct() -> None:
        torch.hub.load(str(REPOSITORY), arguments.upstream, source="local").to(arguments.device)

    first = clock(construct, arguments.device)
    rows = [Row(f"{arguments.upstream}, first time: with its imports", first, peak_mib=peak_mib(arguments.device))]
    again = statistics.median(clock(construct, arguments.device) for _ in range(arguments.steps))
    rows.append(Row(f"{arguments.upstream}, again", again, peak_mib=peak_mib(arguments.device)))
    report(arguments, rows)


if __name__ == "__main__":
    main()
