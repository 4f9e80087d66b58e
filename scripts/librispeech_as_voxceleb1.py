"""Copy a LibriSpeech split into VoxCeleb1's layout, to try speaker identification or verification on it.

    python scripts/librispeech_as_voxceleb1.py LibriSpeech/test-other /tmp/vox

writes /tmp/vox/wav/id1xxxx/CHAPTER/00001.wav, where xxxx is LibriSpeech's number of the speaker, and
/tmp/vox/iden_split.txt: of each speaker's utterances, in order, 60 % train, 20 % dev and 20 % test.

    python scripts/librispeech_as_voxceleb1.py LibriSpeech/test-other /tmp/vox --trials 4000 --trial-speakers 5

puts five speakers into /tmp/vox/test/wav, the others into /tmp/vox/dev/wav, and writes /tmp/vox/veri_test2.txt with
up to 4000 trials of the five, half of them of one speaker. Any folder of speaker folders can be the source.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mynah.downstream.sv_voxceleb1.dataset import hold_out
from mynah.downstream.sv_voxceleb1.trials import check_both_kinds, make_trials
from mynah.utility.audio.files import find_audio
from mynah.utility.errors import UserError

SHARES = (("1", 0.6), ("2", 0.8), ("3", 1.0))
"""Split number and the share of a speaker's utterances up to which it goes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of SPEAKER/CHAPTER/*.flac")
    parser.add_argument("destination", type=Path, help="folder to make")
    parser.add_argument("--trials", type=int, metavar="N", help="write a list of about N trials, for verification")
    parser.add_argument("--trial-speakers", type=float, default=0.2, metavar="SHARE_OR_N", help="default: 0.2")
    arguments = parser.parse_args()
    try:
        count = copy_for_verification(arguments) if arguments.trials else copy_for_identification(arguments)
    except (UserError, OSError, soundfile.SoundFileError) as error:
        sys.exit(f"error: {error}")
    print(f"{count} utterances in {arguments.destination}")


def copy_for_identification(arguments: argparse.Namespace) -> int:
    """The speakers in `wav`, and iden_split.txt."""
    lines = []
    for speaker in speakers_of(arguments.source):
        names = copy_speaker(speaker, arguments.destination / "wav")
        for index, name in enumerate(names):
            split = next(number for number, share in SHARES if index < share * len(names))
            lines.append(f"{split} {name}\n")
    (arguments.destination / "iden_split.txt").write_text("".join(lines))
    return len(lines)


def copy_for_verification(arguments: argparse.Namespace) -> int:
    """The speakers in `dev/wav` and `test/wav`, and veri_test2.txt."""
    speakers = {speaker.name: speaker for speaker in speakers_of(arguments.source)}
    share = arguments.trial_speakers if arguments.trial_speakers < 1 else arguments.trial_speakers / len(speakers)
    held_out = hold_out(sorted(speakers), share)
    copied = {
        name: copy_speaker(folder, arguments.destination / ("test/wav" if name in held_out else "dev/wav"))
        for name, folder in speakers.items()
    }
    tested = {name: copied[name] for name in held_out}
    trials = make_trials(tested, arguments.trials, max(map(len, tested.values())))
    check_both_kinds(trials, str(arguments.source))
    (arguments.destination / "veri_test2.txt").write_text("".join(f"{trial.line}\n" for trial in trials))
    print(f"{len(trials)} trials of {len(tested)} speakers")
    return sum(map(len, copied.values()))


def speakers_of(source: Path) -> list[Path]:
    """The folders of the speakers. Raises UserError where there is none, and OSError."""
    folders = sorted(folder for folder in source.iterdir() if folder.is_dir())
    if not folders:
        raise UserError(f"{source} holds no folders of speakers; expected {source}/SPEAKER/CHAPTER/*.flac")
    return folders


def copy_speaker(speaker: Path, destination: Path) -> list[str]:
    """Copy one speaker's utterances as 16-bit WAV; returns their names below `destination`."""
    own = f"id1{int(speaker.name):04d}" if speaker.name.isdecimal() else speaker.name
    names = []
    for number, path in enumerate(find_audio(speaker), start=1):
        chapter = path.parent.name if path.parent != speaker else "all"
        name = Path(own, chapter, f"{number:05d}.wav")
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(path, dtype="float32")  # as int16 a file of floats would be silence
        samples = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)  # the same bits where it had 16
        soundfile.write(target, samples, rate)
        names.append(name.as_posix())
    return names


if __name__ == "__main__":
    main()
