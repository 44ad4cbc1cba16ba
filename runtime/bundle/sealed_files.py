"""A bundle's files, read without trust, and the seals of the two that no manifest can list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from hardroute.runtime.errors import BundleError
from hardroute.runtime.files import NotRegularError, open_regular, write_together

MANIFEST: Final = "manifest.json"
CERTIFICATE: Final = "certificate.json"
MAX_FILE_BYTES: Final = 2 * 2**30  # what one ONNX protobuf can hold
MAX_TOTAL_BYTES: Final = 8 * 2**30  # of all files of a bundle
MAX_FILES: Final = 512
MAX_SEALED_BYTES: Final = 4 * 2**20
_CHUNK: Final = 2**20


def seal_name(name: str) -> str:
    """The file that holds the seal of `name`.

    >>> seal_name("manifest.json")
    'manifest.sha256'
    """
    return Path(name).with_suffix(".sha256").name


def read_sealed(folder: Path, name: str) -> bytes:
    """The bytes of a file that its seal agrees with.

    A seal is the line that `sha256sum` writes and `sha256sum -c` reads. It finds damage in any byte; it does not
    stop someone who rewrites both, for which a digest is pinned: see `Bundle.open`.

    Raises:
        BundleError: the file or its seal is missing, cannot be read, or was changed.
    """
    data = b"".join(read_chunks(folder / name, MAX_SEALED_BYTES))
    seal = seal_name(name)
    if not (folder / seal).exists():
        raise BundleError(
            f"{seal} is missing, the seal of {name}; copy or export the bundle again, "
            f"or, if you trust it as it is, run `sha256sum {name} > {seal}` in it"
        )
    if b"".join(read_chunks(folder / seal, MAX_SEALED_BYTES)) != _line(name, data):
        raise BundleError(f"{name} or its seal {seal} was changed; copy or export the bundle again")
    return data


def write_sealed(folder: Path, name: str, data: bytes) -> None:
    """Writes a file and its seal, each whole or not at all. Raises OSError."""
    write_together(folder, {name: data, seal_name(name): _line(name, data)})


def sha256(chunks: Iterator[bytes]) -> str:
    """Their digest, hex."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def read_chunks(path: Path, limit: int = MAX_FILE_BYTES) -> Iterator[bytes]:
    """Reads a regular file; no link is followed.

    Raises:
        BundleError: a link, no regular file, larger than `limit` bytes, or not readable.
    """
    try:
        with open_regular(path, follow=False) as file:
            size = 0
            while chunk := file.read(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise BundleError(f"{path.name} is larger than the limit of {limit} bytes")
                yield chunk
    except (IsADirectoryError, NotRegularError):
        if path.is_symlink():
            raise BundleError(f"{path.name} is a symbolic link; put the file itself into the bundle") from None
        raise BundleError(f"{path.name} is not a regular file") from None
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read: {error.strerror}") from None


def list_files(folder: Path) -> set[str]:
    """The names in a bundle's folder.

    Raises:
        BundleError: there are more than `MAX_FILES`, or they take more than `MAX_TOTAL_BYTES`; said before one is read.
    """
    names, total = set(), 0
    with os.scandir(folder) as entries:
        for entry in entries:
            names.add(entry.name)
            total += entry.stat(follow_symlinks=False).st_size
            if len(names) > MAX_FILES:
                raise BundleError(
                    f"there are more than {MAX_FILES} files in it; remove those that are not the bundle's"
                )
            if total > MAX_TOTAL_BYTES:
                raise BundleError(f"its files take more than the limit of {MAX_TOTAL_BYTES} bytes")
    return names


def _line(name: str, data: bytes) -> bytes:
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()
