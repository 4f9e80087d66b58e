"""Trial lists: reading one, and making one of speakers that were held out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from mynah.utility.data.splits import hash_fraction
from mynah.utility.errors import UserError


@dataclass(frozen=True)
class Trial:
    """Two utterances, by their names `speaker/.../file`, and whether one speaker said both."""

    target: bool
    first: str
    second: str

    @property
    def line(self) -> str:
        """As VoxCeleb's lists have it."""
        return f"{int(self.target)} {self.first} {self.second}"


def read_trials(path: Path) -> list[Trial]:
    """The trials of lines such as `1 id10270/5r0dWxy17C8/00001.wav id10270/x6uYqmx31kE/00001.wav`.

    Raises UserError, with the line's number, for any other line, and for a list that lacks trials of either kind.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of trials: {error}") from error
    trials = []
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 3 or fields[0] not in ("0", "1") or not all("/" in name for name in fields[1:]):
            raise UserError(
                f"{path}, line {number}: expected '1' (one speaker) or '0' (two) and two files such as "
                f"id10270/5r0dWxy17C8/00001.wav, got {line.strip()!r}"
            )
        trials.append(Trial(fields[0] == "1", *fields[1:]))
    check_both_kinds(trials, str(path))
    return trials


def check_both_kinds(trials: Sequence[Trial], source: str) -> None:
    """Raise UserError unless there are trials of one speaker and trials of two."""
    own = sum(trial.target for trial in trials)
    if not own or own == len(trials):
        raise UserError(
            f"{source}: {own} trials of one speaker and {len(trials) - own} of two; an error rate needs both"
        )


def utterances_of(trials: Iterable[Trial]) -> list[str]:
    """The distinct names, in the trials' order."""
    return list(dict.fromkeys(name for trial in trials for name in (trial.first, trial.second)))


def make_trials(by_speaker: Mapping[str, Sequence[str]], count: int, utterances_per_speaker: int) -> list[Trial]:
    """About `count` trials, half of them of one speaker: {speaker: names of utterances} -> trials.

    Depends on the names alone. Of each speaker at most `utterances_per_speaker` are used. The two of a target trial
    come from different folders (videos, chapters) where the speaker has several: within one recording, the recording
    is recognized. Where there are fewer pairs than asked for, of either kind, both kinds have as few.
    """
    chosen = {
        speaker: sorted(sorted(names, key=hash_fraction)[:utterances_per_speaker])
        for speaker, names in sorted(by_speaker.items())
    }
    draw = np.random.default_rng(
        int(2**63 * hash_fraction("\n".join(name for own in chosen.values() for name in own)))
    )
    targets = [pair for names in chosen.values() for pair in _own_pairs(names)]
    sizes = np.array([len(names) for names in chosen.values()], dtype=np.int64)
    others = int(sizes.sum() ** 2 - (sizes**2).sum()) // 2
    half = min(count // 2, len(targets), others)
    picked = sorted(draw.choice(len(targets), size=half, replace=False)) if half else []
    trials = [Trial(True, *targets[index]) for index in picked]
    return trials + [Trial(False, *pair) for pair in _pairs_of_two(chosen, half, draw)]


def _own_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    pairs = list(combinations(names, 2))
    return [pair for pair in pairs if _folder(pair[0]) != _folder(pair[1])] or pairs


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _pairs_of_two(
    by_speaker: Mapping[str, Sequence[str]], count: int, draw: np.random.Generator
) -> list[tuple[str, str]]:
    """`count` distinct pairs of utterances of two speakers; there must be as many."""
    names = [(speaker, name) for speaker, own in by_speaker.items() for name in own]
    found: dict[tuple[str, str], None] = {}
    while len(found) < count:
        (speaker, first), (other, second) = (names[index] for index in sorted(draw.integers(len(names), size=2)))
        if speaker != other:
            found[first, second] = None
    return list(found)
