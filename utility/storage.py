"""The cache folder, and atomic writing of files."""

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """The user's cache folder: $MYNAH_CACHE, else $XDG_CACHE_HOME/mynah, else ~/.cache/mynah.

    Nothing is created here; each writer makes its own subfolder.
    """
    if own := os.environ.get("MYNAH_CACHE"):
        return Path(own).expanduser().absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser().absolute() / "mynah"
    return Path.home() / ".cache" / "mynah"


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all, and make its folder. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as temporary_folder:
        made = Path(temporary_folder) / path.name
        made.write_text(text, encoding="utf-8", errors="surrogateescape")
        made.replace(path)
