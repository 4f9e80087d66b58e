"""Which alignment belongs to which audio file: of a folder of files, or of one file for a whole corpus."""

from collections import defaultdict
from pathlib import Path, PurePosixPath

from mynah.utility.audio.alignment import Segment
from mynah.utility.audio.alignment_files import ALIGNMENT_READERS, read_alignment, read_corpus_alignments
from mynah.utility.errors import UserError


class AlignmentIndex:
    """path: a folder of alignments named as their audio files are, anywhere below it, or a CTM or a list of s3prl's.

    tier: of TextGrids, see read_alignment. Raises UserError where there is no alignment at all.
    """

    def __init__(self, path: str | Path, tier: str = ""):
        self.path, self.tier = Path(path).expanduser().absolute(), tier
        self._files: dict[str, list[Path]] = defaultdict(list)
        self._whole: dict[str, list[Segment]] = {}
        self._taken: dict[str, PurePosixPath] = {}
        if self.path.is_dir():
            order = list(ALIGNMENT_READERS)
            for file in sorted(self.path.rglob("*"), key=lambda file: (_rank(file, order), str(file))):
                if file.suffix.lower() in order:
                    self._files[file.stem].append(file)
            if not self._files:
                raise UserError(f"{self.path} holds no alignment; known are files *{', *'.join(order)}")
        elif self.path.is_file():
            self._whole = read_corpus_alignments(self.path)
        else:
            raise UserError(f"alignments not found: {self.path}; check the path")

    def find(self, name: str) -> list[Segment] | None:
        """The alignment of the audio file `name`, its path within the corpus; None where there is none.

        Of files of one stem the one in the same folders is taken. Raises UserError where that is not told.
        """
        stem = PurePosixPath(name).stem
        if self._whole:
            return self._given(name, stem, self._whole[stem]) if stem in self._whole else None
        files = self._files.get(stem, [])
        same_place = [file for file in files if file.relative_to(self.path).parent == PurePosixPath(name).parent]
        candidates = same_place or files
        if not candidates:
            return None
        rivals = [file for file in candidates if file.suffix.lower() == candidates[0].suffix.lower()]
        if len(rivals) > 1:
            raise UserError(f"{name}: which is its alignment, {rivals[0]} or {rivals[1]}? remove one of them")
        return self._given(name, str(candidates[0]), read_alignment(candidates[0], self.tier))

    def _given(self, name: str, source: str, alignment: list[Segment]) -> list[Segment]:
        """The alignment. Raises UserError where it was another recording's already."""
        recording = PurePosixPath(name).with_suffix("")
        if (earlier := self._taken.setdefault(source, recording)) != recording:
            raise UserError(
                f"{self.path}: the alignment {source} would be that of {earlier} and of {recording}; put alignments "
                "into folders as the audio is in, or give files names of their own"
            )
        return alignment


def _rank(file: Path, order: list[str]) -> int:
    suffix = file.suffix.lower()
    return order.index(suffix) if suffix in order else len(order)
