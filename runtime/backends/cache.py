"""A folder for what backends compile: native code, so only its owner may write there, and damage is seen.

The name of an entry is the digest of all that it depends on, so a stale one is never found. Each file begins with the
SHA-256 of the rest: a torn or rotten file counts as absent. That is no defence against whoever can write in the folder;
against others, the folder is refused unless it belongs to this user and is closed to everybody else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from pathlib import Path
from typing import Final

from hardroute.runtime.errors import BackendError
from hardroute.runtime.files import open_regular, write_whole

logger = logging.getLogger(__name__)
_DIGEST_BYTES: Final = 32


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/hardroute/NAME` (default `~/.cache`), made with mode 0700.

    Raises:
        BackendError: it cannot be made, or somebody else can write there.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hardroute" / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise BackendError(f"cache folder {folder}: {error.strerror}; set XDG_CACHE_HOME to another place") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise BackendError(
            f"cache folder {folder} is a link, another user's, or open to others; compiled code from there would be "
            "run: remove it, or chmod 700 it if nobody else has written there"
        )
    return folder


def key(*parts: str) -> str:
    """The name of an entry that depends on these values."""
    # Each with its length: ("ab", "c") and ("a", "bc") are different entries.
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def read(path: Path) -> bytes | None:
    """What `write` put there; None if nothing, or no longer the same: then a warning is logged."""
    try:
        with open_regular(path, follow=False) as file:
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read and is made anew: %s", path, error)
        return None
    digest, content = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() == digest:
        return content
    logger.warning("%s is damaged and made anew", path)
    return None


def write(path: Path, content: bytes) -> None:
    """Stores one entry whole. A cache that cannot be written costs time, not the answer: a warning is logged."""
    try:
        write_whole(path, hashlib.sha256(content).digest() + content)
    except OSError as error:
        logger.warning("%s cannot be kept, so it will be made again next time: %s", path, error)
