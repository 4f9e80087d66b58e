"""Tables for phone_ctc, asr_ctc and example_sequence; of every five speakers three train, one is dev, one test.

python scripts/transcript_tables.py LibriSpeech/test-clean libri.csv     path, text, split
python scripts/transcript_tables.py speechocean762 ocean.csv             path, text, phones, split; of its test set
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

source, table = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
phones, rows = defaultdict(list), []
if (source / "resource" / "text-phone").is_file():
    for line in (source / "resource" / "text-phone").read_text().splitlines():  # 000010011.0<tab>W_B IY0_E
        name, *said = line.split()
        phones[name.split(".")[0]] += [phone.split("_")[0] for phone in said]
    texts = dict(line.split(maxsplit=1) for line in (source / "test" / "text").read_text().splitlines())
    files = dict(line.split() for line in (source / "test" / "wav.scp").read_text().splitlines())
    rows = [(Path(files[name]).parts[-2], source / files[name], text, name) for name, text in texts.items()]
for path in sorted(source.rglob("*.trans.txt")):
    for name, text in (line.split(maxsplit=1) for line in path.read_text().splitlines()):
        rows.append((name.split("-")[0], path.parent / f"{name}.flac", text, name))
numbers = {speaker: number for number, speaker in enumerate(sorted({row[0] for row in rows}))}
splits = ("train", "train", "train", "dev", "test")
with table.open("w", newline="") as file:
    lines = csv.writer(file)
    lines.writerow(["path", "split", "text", *(["phones"] if phones else [])])
    for speaker, path, text, name in rows:
        said = [" ".join(phones[name])] if phones else []
        lines.writerow([path, splits[numbers[speaker] % 5], text.upper(), *said])
