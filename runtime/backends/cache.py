"""A folder for what backends compile: native code, so only its owner may write there, and damage is seen.

The name of an entry is the digest of all that it depends on, so a stale one is never found. Each file begins with the
SHA-256 of the rest: a torn or rotten file counts as absent. That is no defence against whoever can write in the folder;
against others, the folder is refused unless it belongs to this user and is closed to everybody else.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from hardroute.runtime.errors import BackendError


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
    """What `write` put there; None if nothing, or no longer the same."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, content = data[:32], data[32:]
    return content if hashlib.sha256(content).digest() == digest else None


def write(path: Path, content: bytes) -> None:
    """Stores one entry in one rename. A cache that cannot be written costs time, not the answer: errors are dropped."""
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            temporary = Path(file.name)
            file.write(hashlib.sha256(content).digest() + content)
        temporary.replace(path)
    except OSError:
        if temporary:
            temporary.unlink(missing_ok=True)
