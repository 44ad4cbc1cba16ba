"""The files of one log, oldest first, and their lines: read with bounded memory, whatever they hold."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from hardroute.runtime.errors import LogError
from hardroute.runtime.files import NotRegularError, open_regular
from hardroute.runtime.routelog.chain import MAX_LINE

_ROTATED: Final = re.compile(r"\.([0-9]{12,18})$")


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        number: in its file, from 1.
        data: its bytes with the line break; the first `MAX_LINE` + 1 of them if there are more.
    """

    number: int
    data: bytes


class LogFile(NamedTuple):
    """A file opened for reading, as it was then: what is appended later is not seen."""

    path: Path
    file: BinaryIO
    size: int

    def lines(self) -> Iterator[Line]:
        """Yields the lines. The last one may lack its line break. Raises LogError."""
        left, number = self.size, 0
        try:
            while left > 0 and (data := self.file.readline(min(left, MAX_LINE + 1))):
                left -= len(data)
                more = data
                while len(data) > MAX_LINE and not more.endswith(b"\n") and left > 0:
                    more = self.file.readline(min(left, MAX_LINE))
                    left -= len(more)
                    if not more:
                        break
                number += 1
                yield Line(number, data)
        except OSError as error:
            raise LogError(f"route log {self.path}: cannot be read: {error.strerror}") from None

    def is_same(self, status: os.stat_result) -> bool:
        return os.path.samestat(os.fstat(self.file.fileno()), status)


def rotated_name(path: Path, first: int) -> Path:
    """What `path` is called once it has been rotated away; `first` is the number of its first line."""
    return path.with_name(f"{path.name}.{first:012d}")


def first_seq(path: Path) -> int | None:
    """The number of the first line that a rotated file's name states; None for another file."""
    found = _ROTATED.search(path.name)
    return int(found[1]) if found else None


def newest_name(path: Path) -> Path:
    """The file that a rotated one was rotated away from; any other path is returned as it is."""
    return path.with_name(_ROTATED.sub("", path.name))


def torn_name(path: Path, seq: int) -> Path:
    """Where the bytes of a line that was cut off are kept; `seq` is the number that line would have had."""
    return path.with_name(f"{path.name}.torn-{seq:012d}")


def rotated_files(path: Path) -> list[Path]:
    """The files that were rotated away from `path`, oldest first."""
    found = []
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                if entry.name.startswith(f"{path.name}."):
                    seq = first_seq(Path(entry.name))
                    if seq is not None and entry.name == rotated_name(path, seq).name:
                        found.append((seq, path.with_name(entry.name)))
    except OSError as error:
        raise LogError(f"route log {path}: cannot list its folder: {error.strerror}") from None
    return [file for _, file in sorted(found)]


def open_files(paths: Sequence[Path]) -> Iterator[LogFile]:
    """Opens the files of a log one after the other, oldest first.

    Args:
        paths: one path stands for itself and the files rotated away from it; several are just those files.

    Raises:
        LogError: there is none, or one cannot be read.
    """
    if len(paths) > 1:
        for path in sorted(paths, key=_age):
            with open_file(path) as file:
                yield file
        return
    # Links are followed first: the rotated files lie beside the file, not beside the link.
    path = Path(os.path.realpath(paths[0]))
    if not path.exists() and path.parent.is_dir() and (older := rotated_files(path)):
        for one in older:
            with open_file(one) as file:
                yield file
        return
    # The newest is opened before the others are listed: a writer that rotates meanwhile makes nobody miss a line.
    with open_file(path) as newest:
        for one in rotated_files(path):
            with open_file(one) as file:
                if newest.is_same(os.fstat(file.file.fileno())):
                    break
                yield file
        yield newest


@contextmanager
def open_file(path: Path) -> Iterator[LogFile]:
    """Opens a regular file for reading; its size is taken now. Raises LogError."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path))
        except IsADirectoryError:
            raise LogError(f"route log {path}: is a folder; name a file in it") from None
        except NotRegularError:
            raise LogError(f"route log {path}: is not a regular file") from None
        except OSError as error:
            raise LogError(f"route log {path}: cannot be read: {error.strerror}") from None
        yield LogFile(path, file, os.fstat(file.fileno()).st_size)


def digest_file(path: Path) -> str:
    """SHA-256 of a regular file, hex. Raises LogError."""
    with open_file(path) as log:
        found = hashlib.sha256()
        while data := log.file.read(1 << 20):
            found.update(data)
        return found.hexdigest()


def _age(path: Path) -> tuple[bool, int]:
    seq = first_seq(path)
    return seq is None, seq or 0
