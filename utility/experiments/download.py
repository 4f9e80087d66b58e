"""Checkpoints from a URL, downloaded once, whole and verified."""

import hashlib
import logging
import os
import re
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch

from mynah.utility.errors import UserError
from mynah.utility.experiments.integrity import file_digest, why_damaged
from mynah.utility.storage import replacing

TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up."""
CHUNK = 2**20

log = logging.getLogger("mynah")


def is_url(source: str | Path) -> bool:
    """Whether a checkpoint is given as a URL rather than as a path."""
    return bool(re.match(r"[a-z][a-z0-9+.-]*://", str(source), re.IGNORECASE))


def download(url: str) -> Path:
    """The file behind `url`, from torch's hub folder or downloaded into it.

    "#sha256=..." at the end of the URL is compared with the file, also with an earlier copy. Raises UserError, naming
    the URL, where nothing, too little or something else arrives; such a file is not kept.
    """
    address, _, fragment = url.partition("#")
    expected = _expected_digest(url, fragment)
    parts = _parse(url, address)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    place = hashlib.sha256(address.encode(errors="surrogateescape")).hexdigest()[:12]  # sites share file names
    name = re.sub(r"[^\w.-]", "_", Path(unquote(parts.path)).name)[-100:] or "checkpoint"
    path = folder / f"{place}-{name}"
    if not path.is_file():
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1"):
            log.warning("%s: plain http lets others change the file on its way; https or #sha256=... is safer", url)
        _fetch(address, path)
    reason = why_damaged(path)
    if reason is None and expected and (digest := file_digest(path)) != expected:
        reason = f"its SHA-256 is {digest}, not the one given; is this the right file?"
    if reason:
        path.unlink(missing_ok=True)
        raise UserError(f"{url}: {reason} (the copy {path} was removed; the next run downloads it anew)")
    return path


def _parse(url: str, address: str) -> urllib.parse.ParseResult:
    try:
        parts = urlparse(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or any(ord(character) <= 32 for character in address):
        raise UserError(f"{url!r}: not a URL that can be downloaded; expected https://HOST/PATH")
    return parts


def _expected_digest(url: str, fragment: str) -> str:
    if not fragment:
        return ""
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not found:
        raise UserError(f"{url}: after # expected sha256= and 64 hexadecimal digits")
    return found[1].lower()


def _fetch(address: str, path: Path) -> None:
    log.info("downloading %s to %s", address, path)
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer, replacing(path) as file:
            announced, received = answer.headers.get("Content-Length"), 0
            while chunk := answer.read(CHUNK):
                received += file.write(chunk)
            if announced is not None and received != int(announced):
                raise OSError(f"{received} of {announced} bytes arrived")
    except (OSError, HTTPException, ValueError) as error:  # a URLError is an OSError
        reason = getattr(error, "reason", None) or error
        reason = os.strerror(reason.errno) if isinstance(reason, OSError) and reason.errno else reason
        raise UserError(f"{address}: could not be downloaded ({reason}); nothing of it was kept in {path}") from error
