"""Tables for phone_ctc, asr_ctc and example_sequence; of every five speakers three train, one is dev, one test.

python scripts/transcript_tables.py LibriSpeech/test-clean libri.csv     path, text, split
python scripts/transcript_tables.py speechocean762 ocean.csv             path, text, phones, split; of its test set
"""

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

SPLITS = ("train", "train", "train", "dev", "test")
Utterance = tuple[str, Path, str, str]
"""Speaker, file, text, and phones, "" where there are none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the corpus")
    parser.add_argument("table", type=Path, help="file to write")
    arguments = parser.parse_args()
    source = arguments.source.absolute()
    try:
        utterances = [*speechocean762(source), *librispeech(source)]
        if not utterances:
            sys.exit(
                f"error: {source} holds neither *.trans.txt (LibriSpeech) nor resource/text-phone (speechocean762)"
            )
        write_table(utterances, arguments.table)
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"error: {type(error).__name__}: {error}")
    print(f"{len(utterances)} utterances in {arguments.table}")


def speechocean762(source: Path) -> list[Utterance]:
    """Those of its test set. Raises OSError, and others for files that are not what they are called."""
    phones_file = source / "resource" / "text-phone"
    if not phones_file.is_file():
        return []
    phones: dict[str, list[str]] = defaultdict(list)
    for line in phones_file.read_text().splitlines():  # 000010011.0<tab>W_B IY0_E
        name, *said = line.split()
        phones[name.split(".")[0]] += [phone.split("_")[0] for phone in said]
    texts = dict(line.split(maxsplit=1) for line in (source / "test" / "text").read_text().splitlines())
    files = dict(line.split() for line in (source / "test" / "wav.scp").read_text().splitlines())
    return [
        (Path(files[name]).parts[-2], source / files[name], text, " ".join(phones[name]))
        for name, text in texts.items()
    ]


def librispeech(source: Path) -> list[Utterance]:
    """All below the folder. Raises OSError, and ValueError for lines without a text."""
    return [
        (name.split("-")[0], path.parent / f"{name}.flac", text, "")
        for path in sorted(source.rglob("*.trans.txt"))
        for name, text in (line.split(maxsplit=1) for line in path.read_text().splitlines())
    ]


def write_table(utterances: list[Utterance], table: Path) -> None:
    numbers = {speaker: number for number, speaker in enumerate(sorted({each[0] for each in utterances}))}
    has_phones = any(phones for *_, phones in utterances)
    with table.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "split", "text", *(["phones"] if has_phones else [])])
        for speaker, path, text, phones in utterances:
            split = SPLITS[numbers[speaker] % len(SPLITS)]
            lines.writerow([path, split, text.upper(), *([phones] if has_phones else [])])


if __name__ == "__main__":
    main()
