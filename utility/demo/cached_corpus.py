"""Generated demo corpora, cached in the user's cache folder."""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mynah.utility.errors import UserError
from mynah.utility.storage import cache_dir, folder_locked

BUILDING = ".making-"

log = logging.getLogger("mynah")


def cached_corpus(name: str, version: str, of_what: str, write: Callable[[Path], None]) -> Path:
    """The corpus's folder in the cache, named `name`; made beside its place and renamed when whole.

    version: one up whenever the corpus changes, so that an older one in the cache is not taken for it. of_what: for
    the line that says it is being made. write: fills the empty folder that it is given.
    Raises UserError where the cache folder cannot be written.
    """
    parent = cache_dir() / "demo" / version
    place = parent / name
    if place.is_dir():
        return place
    try:
        with _one_builder(parent):
            if place.is_dir():  # made by another process meanwhile
                return place
            log.info("making the demo corpus %s (%s) in %s", name, of_what, place)
            with tempfile.TemporaryDirectory(dir=parent, prefix=f"{BUILDING}{name}.") as temporary_folder:
                made = Path(temporary_folder) / name
                made.mkdir()
                write(made)
                _rename_unless_there(made, place)
    except OSError as error:
        raise UserError(
            f"the demo corpus {name} cannot be made in {parent}: {error.strerror or error}; free some space "
            "there, or name another cache folder in the environment variable MYNAH_CACHE"
        ) from error
    return place


def _rename_unless_there(made: Path, place: Path) -> None:
    try:
        made.rename(place)
    except OSError:
        if not place.is_dir():  # it is there where another process was faster; ours is then not needed
            raise


@contextlib.contextmanager
def _one_builder(parent: Path) -> Iterator[None]:
    """One process at a time; what killed ones have left half made is removed.

    The lock is the system's, and ends with its process. Where the file system has none, each makes a corpus of its
    own, and the first is taken.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with folder_locked(parent) as alone:
        if alone:
            for abandoned in parent.glob(f"{BUILDING}*"):
                shutil.rmtree(abandoned)
        yield
