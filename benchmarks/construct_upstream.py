"""How long an upstream takes to be there, through torch.hub from this checkout, torch being imported already."""

from statistics import median

import torch
from report import REPOSITORY, Report, Row, build_parser, clock, peak_mib, prepare


def main() -> None:
    parser = build_parser(__doc__, steps=5, upstream="aalbert")
    arguments = prepare(parser)

    def construct() -> None:
        torch.hub.load(str(REPOSITORY), arguments.upstream, source="local").to(arguments.device)

    first = clock(construct, arguments.device)
    report = Report(arguments)
    report.add(Row(f"{arguments.upstream}, with its imports", first, peak_mib=peak_mib(arguments.device)))
    again = median([clock(construct, arguments.device) for _ in range(arguments.steps)])
    report.add(Row(f"{arguments.upstream}, again", again, peak_mib=peak_mib(arguments.device)))
    report.print()


if __name__ == "__main__":
    main()
