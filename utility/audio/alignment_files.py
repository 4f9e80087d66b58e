"""Files that hold alignments, by format: TextGrid, ESPS xlabel, tables, CTM, and lists of one label a frame."""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from mynah.utility.audio.alignment import Segment, segments_at_rate
from mynah.utility.errors import UserError

LIST_SECONDS = 0.01
"""Of a frame in s3prl's list of aligned phones."""
OVERLAP_SECONDS = 0.002
"""What two segments may share; files are rounded."""
PHONE_TIERS = ("phones", "phone", "phonemes", "segments")

Placed = tuple[str, float, float, str]
"""Where in the file, for messages; start, end in seconds; label."""


def read_alignment(path: Path, tier: str = "") -> list[Segment]:
    """The segments of one utterance's file, in order of time; its name's ending says the format.

    tier: of a TextGrid; "" takes one called phones or phone, or the only one. Segments without a label or of no
    length are left out. Raises UserError, with the line, for anything that cannot be an alignment.
    """
    read = ALIGNMENT_READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(
            f"the alignment {path}: the format is told by the name's ending, which must be one of "
            f"{', '.join(ALIGNMENT_READERS)}; rename or convert it"
        )
    return ordered_segments(path, read(path, tier))


def read_corpus_alignments(path: Path) -> dict[str, list[Segment]]:
    """{utterance's name: its segments} of a file that holds a whole corpus: a CTM, or a list `name id id ...`, one an
    utterance and 10 ms. Raises UserError, with the line."""
    lines = read_lines(path)
    frames = all(field.isdecimal() for _, line in lines[:50] for field in line.split()[1:])
    return _read_frame_list(path, lines) if frames and path.suffix.lower() != ".ctm" else _read_ctm(path, lines)


def ordered_segments(path: Path, found: Iterable[Placed]) -> list[Segment]:
    """Sorted, and checked: times are not negative, none ends before it starts, none overlap."""
    segments: list[Segment] = []
    for place, start, end, label in sorted(found, key=lambda one: one[1:3]):
        if start < 0:
            raise UserError(f"{path}, {place}: it starts at {start:g} s; times must not be negative")
        if not start <= end < float("inf"):
            raise UserError(f"{path}, {place}: it ends at {end:g} s, before its start at {start:g} s")
        if start == end or not label:
            continue
        if segments and start < segments[-1].end - OVERLAP_SECONDS:
            before = segments[-1]
            raise UserError(
                f"{path}, {place}: {label} starts at {start:g} s, while {before.label} lasts to {before.end:g} s; "
                "segments must not overlap"
            )
        segments.append(Segment(start, end, label))
    return segments


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines that are not blank. Raises UserError for a file that is empty or not UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: is not UTF-8 text; save the file in UTF-8") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty")
    return lines


def _read_table(path: Path, tier: str) -> list[Placed]:
    """Lines `start end label`, or `label start end` where no line begins with a number."""
    rows = [(f"line {number}", line.split()) for number, line in read_lines(path)]
    for place, fields in rows:
        if len(fields) != 3:
            raise UserError(f"{path}, {place}: expected three columns, start end label, got {len(fields)}")
    label_first = all(_number(fields[0]) is None for _, fields in rows)
    start, end, label = (1, 2, 0) if label_first else (0, 1, 2)
    found = []
    for place, fields in rows:
        times = _number(fields[start]), _number(fields[end])
        if None in times:
            got = " ".join(fields)
            raise UserError(f"{path}, {place}: expected start end label, or label start end, in seconds, got {got}")
        found.append((place, *times, fields[label]))
    return found


def _read_xlabel(path: Path, tier: str, before_label: str = " \t") -> list[Placed]:
    """ESPS xlabel: after a header that ends in `#`, lines `end color label remarks`.

    Remarks begin with + or -, and stand alone where an interval has no label of its own. before_label: the characters
    that may stand between the color and the label.
    """
    lines = read_lines(path)
    header = next((index for index, (_, line) in enumerate(lines) if line.strip() == "#"), None)
    if header is None:
        raise UserError(f"{path}: expected the header of an xlabel file, with a line # at its end")
    found, start = [], 0.0
    for number, line in lines[header + 1 :]:
        match = re.match(rf"\s*(\S+)\s+-?\d+(?:[{before_label}]+([^\s+-]\S*))?", line)
        end = _number(match[1]) if match else None
        if end is None:
            raise UserError(f"{path}, line {number}: expected end color label, got {line.strip()}")
        found.append((f"line {number}", start, end, match[2] or ""))
        start = end
    return found


def _read_lablaut(path: Path, tier: str) -> list[Placed]:
    """EmoDB's lablaut: xlabel files whose times are where a label begins (its sibilants are loud after, not before
    them). What follows the last line has no end, and is left out."""
    marks = _read_xlabel(path, tier, before_label=" ")  # a tab stands before remarks, of which one has no sign
    return [(place, start, following[2], label) for (place, _, start, label), following in pairwise(marks)]


def _read_textgrid(path: Path, tier: str) -> list[Placed]:
    from praatio import textgrid
    from praatio.utilities.errors import PraatioException

    try:
        grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True, duplicateNamesMode="rename")
    except OSError as error:
        raise UserError(f"the alignment {path} cannot be read: {error.strerror}") from error
    except (PraatioException, ValueError, IndexError, KeyError, AssertionError) as error:
        first = str(error).strip().split("\n")[0][:200]
        raise UserError(f"{path} is not a TextGrid that can be read, or it is truncated: {first}") from error
    tiers = {
        name: grid.getTier(name) for name in grid.tierNames if isinstance(grid.getTier(name), textgrid.IntervalTier)
    }
    names = ", ".join(tiers) or "none"
    if tier and tier not in tiers:
        raise UserError(f"{path} has no tier of intervals called {tier!r}; it has: {names}")
    candidates = [tier] if tier else [name for name in tiers if name.lower() in PHONE_TIERS] or list(tiers)
    if len(candidates) != 1:
        raise UserError(f"{path}: which tier has the labels? it has: {names}; name one with datarc.tier")
    entries, end = tiers[candidates[0]].entries, tiers[candidates[0]].maxTimestamp
    if not entries or entries[-1][1] < end - OVERLAP_SECONDS:  # a tier's intervals cover it whole
        raise UserError(f"{path} is truncated, or no TextGrid: the intervals of {candidates[0]} end before {end:g} s")
    return [
        (f"interval {number}", float(start), float(end), label.strip())
        for number, (start, end, label) in enumerate(entries, start=1)
    ]


ALIGNMENT_READERS: dict[str, Callable[[Path, str], list[Placed]]] = {
    ".textgrid": _read_textgrid,
    ".lablaut": _read_lablaut,
    ".lab": _read_xlabel,
    ".phones": _read_table,
    ".phn": _read_table,
    ".txt": _read_table,
    ".tsv": _read_table,
}
"""By the ending of the file's name, in the order in which they are taken where an utterance has several."""


def _read_ctm(path: Path, lines: Sequence[tuple[int, str]]) -> dict[str, list[Segment]]:
    """NIST's CTM: `utterance channel start duration label [confidence]`; lines that begin with ;; are remarks."""
    found: dict[str, list[Placed]] = {}
    for number, line in lines:
        if line.startswith(";;"):
            continue
        fields = line.split()
        times = [_number(field) for field in fields[2:4]]
        if len(fields) not in (5, 6) or None in times:
            expected = "utterance channel start duration label [confidence], or utterance id id ..."
            raise UserError(f"{path}, line {number}: expected {expected}, got {line.strip()[:80]}")
        start, duration = times
        found.setdefault(fields[0], []).append((f"line {number}", start, round(start + duration, 6), fields[4]))
    return {name: ordered_segments(path, placed) for name, placed in found.items()}


def _read_frame_list(path: Path, lines: Sequence[tuple[int, str]]) -> dict[str, list[Segment]]:
    found: dict[str, list[Segment]] = {}
    for number, line in lines:
        name, *labels = line.split()
        if not labels or not all(label.isdecimal() for label in labels):
            raise UserError(f"{path}, line {number}: expected utterance id id ..., with one id for each 10 ms")
        if name in found:
            raise UserError(f"{path}, line {number}: {name} is listed twice")
        runs = segments_at_rate(map(int, labels), LIST_SECONDS)
        found[name] = [Segment(start, end, str(label)) for start, end, label in runs]
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
