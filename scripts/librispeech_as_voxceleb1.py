"""Copy a LibriSpeech split into VoxCeleb1's layout, to try speaker identification on it.

    python scripts/librispeech_as_voxceleb1.py LibriSpeech/test-other /tmp/vox

writes /tmp/vox/wav/id1xxxx/CHAPTER/00001.wav, where xxxx is LibriSpeech's number of the speaker, and
/tmp/vox/iden_split.txt: of each speaker's utterances, in order, 60 % train, 20 % dev and 20 % test.
"""

import argparse
from pathlib import Path

import soundfile

SHARES = (("1", 0.6), ("2", 0.8), ("3", 1.0))
"""Split number and the share of a speaker's utterances up to which it goes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of SPEAKER/CHAPTER/*.flac")
    parser.add_argument("destination", type=Path, help="folder to make")
    arguments = parser.parse_args()
    lines = []
    for speaker in sorted(folder for folder in arguments.source.iterdir() if folder.is_dir()):
        lines += copy_speaker(speaker, arguments.destination)
    (arguments.destination / "iden_split.txt").write_text("".join(f"{line}\n" for line in lines))
    print(f"{len(lines)} utterances in {arguments.destination}")


def copy_speaker(speaker: Path, destination: Path) -> list[str]:
    """Copy one speaker's utterances as 16-bit WAV; returns the lines of the split list."""
    lines, paths = [], sorted(speaker.rglob("*.flac"))
    for index, path in enumerate(paths):
        name = Path(f"id1{int(speaker.name):04d}", path.parent.name, f"{index + 1:05d}.wav")
        target = destination / "wav" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(target, samples, rate)
        split = next(number for number, share in SHARES if index < share * len(paths))
        lines.append(f"{split} {name.as_posix()}")
    return lines


if __name__ == "__main__":
    main()
