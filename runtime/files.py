"""Files, with care: written whole or not at all, read where regular and in one way only, named in plain text."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # never to wait for the other end of a named pipe


def printable(text: str) -> str:
    """The text on one line: what could break a line, or steer a terminal, becomes "?" or a blank."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


def parse_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8 that no two readers can understand differently.

    Raises:
        ValueError: not JSON, nested too deeply, an object names a key twice, or a number is not finite.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not finite")


@contextlib.contextmanager
def open_regular(path: str | os.PathLike[str], *, follow: bool = True) -> Iterator[BinaryIO]:
    """Opens a regular file for reading. What is judged is the open file, so its name cannot be swapped in between.

    Args:
        follow: whether a symbolic link is followed; else it counts as not regular.

    Raises:
        IsADirectoryError: a folder. NotRegularError: a pipe, a device, a socket, or a link that is not followed.
        OSError: it cannot be opened or read.
    """
    try:
        descriptor = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    except OSError:
        if not follow and os.path.islink(path):
            raise NotRegularError(f"{os.fspath(path)}: a symbolic link") from None
        raise
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(f"{os.fspath(path)}: a folder")
        if not stat.S_ISREG(mode):
            raise NotRegularError(f"{os.fspath(path)}: not a regular file")
        yield file


class NotRegularError(OSError):
    """What lies there is no regular file."""


class TooLargeError(Exception):
    """A file holds more than whoever reads it takes."""


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file, of which no more than one beyond `limit` are read. Raises as `open_regular`.

    Raises:
        TooLargeError: there are more than `limit` bytes.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLargeError(f"{os.fspath(path)}: more than {limit} bytes")
    return data


def write_whole(path: str | os.PathLike[str], data: bytes | str, *, durable: bool = False) -> None:
    """Writes one file in one rename: whoever looks finds the old one or the new one, whole. Raises OSError.

    Args:
        durable: returns once it is on the disk.
    """
    with replacing(path, durable=durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `path` when the block ends well, and vanishes when it does not."""
    target = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's 0600 would keep others from what they could read before
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_together(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Writes several files of one folder: all have been written before the first takes its place. Raises OSError."""
    with contextlib.ExitStack() as stack:
        for name, data in files.items():
            file = stack.enter_context(replacing(Path(folder) / name))
            file.write(data)
            file.flush()  # a disk that is full is found out before anything is replaced


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill that becomes `path` when the block ends well, and vanishes when it does not.

    Raises OSError; FileExistsError where `path` is there already and is no empty folder.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise FileExistsError(f"{target}: already there")
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        folder.chmod(0o777 & ~_umask())  # mkdtemp's 0700 would keep a service's own user from reading it
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _umask() -> int:
    # Linux tells it without setting it, which another thread would feel.
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/self/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("Umask:")).split()[1], 8)
    return 0o022
