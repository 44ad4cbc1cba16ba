"""How a writer takes a log up again: it locks the file, finds the end of the chain, and mends a torn line."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from hardroute.runtime.errors import LogError
from hardroute.runtime.routelog.chain import (
    GENESIS,
    MAX_LINE,
    Head,
    MalformedLine,
    could_be_torn,
    digest,
    link,
    parse,
)
from hardroute.runtime.routelog.files import digest_file, open_file, rotated_files, torn_name
from hardroute.runtime.routelog.record import time_of

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class Opened(NamedTuple):
    """A locked file, ready for the next line.

    Attributes:
        file: unbuffered, appending; the lock goes when it is closed.
        head: end of the chain, in this file or in the one rotated away last.
        first: number of the file's first line; of the next line where the file is empty.
        torn: the mark that the next line must carry because bytes were cut off before it; empty if none were.
        time: of the file's last line, as far as it has one and says so.
    """

    file: io.FileIO
    head: Head
    first: int
    torn: dict[str, Any]
    time: datetime | None


def take_up(path: Path) -> Opened:
    """Opens or makes the newest file of a log.

    A last line without its line break was cut off by a crash: its bytes are moved to a file beside it (`torn_name`), so
    that the log holds whole lines only, and the next line says so.

    Raises:
        LogError: another writer holds it, or it does not end as a routing log does.
        OSError: the system refused.
    """
    file = hold(path)
    try:
        older = rotated_files(path)
        # A rotation that stopped half-way: the file has its new name and still the old one.
        if older and os.path.samestat(older[-1].stat(), os.fstat(file.fileno())):
            older.pop().unlink()
        line, torn = _tail(file.fileno(), path)
        before = _head_of(path, line) if line else _end_of(older)
        aside = torn_name(path, before.seq + 1)
        if torn:
            _set_aside(torn, file.fileno(), aside)
        first = _first_of(path) if line else before.seq + 1
        return Opened(file, before, first, _torn_mark(aside), time_of(parse(line)) if line else None)
    except BaseException:
        file.close()
        raise


def hold(path: Path) -> io.FileIO:
    """Opens a file for appending and locks it for as long as it is open.

    Raises LogError where somebody else has locked it, OSError where the system refuses.
    """
    while True:
        file = io.FileIO(os.open(path, _FLAGS, 0o644), "a+")
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise LogError(f"route log {path}: is not a regular file, so no chain can be kept in it")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between open and lock its writer may have rotated it away: then this is not the newest file any more.
            if os.path.exists(path) and os.path.samestat(os.stat(path), status):
                return file
        except OSError as error:
            file.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise LogError(
                    f"route log {path}: another writer has it open; a chain has one writer, so name another file"
                ) from None
            raise
        except BaseException:
            file.close()
            raise
        file.close()


def _tail(file: int, path: Path) -> tuple[bytes, bytes]:
    """The last whole line (empty if there is none), and the bytes after it."""
    size = os.fstat(file).st_size
    block = os.pread(file, 2 * MAX_LINE, max(0, size - 2 * MAX_LINE))
    end = block.rfind(b"\n") + 1
    start = block.rfind(b"\n", 0, max(0, end - 1)) + 1
    line, torn = block[start:end], block[end:]
    if len(torn) > MAX_LINE or len(line) > MAX_LINE or not could_be_torn(torn):
        raise LogError(f"route log {path}: does not end as a routing log does; move it away or name another file")
    return line, torn


def _head_of(path: Path, line: bytes) -> Head:
    try:
        return Head(link(line, parse(line)).seq, digest(line))
    except MalformedLine as error:
        raise LogError(
            f"route log {path}: its last line {error}, so no chain can go on from it; move the file away"
        ) from None


def _end_of(older: list[Path]) -> Head:
    if not older:
        return GENESIS
    with open_file(older[-1]) as log:
        line, torn = _tail(log.file.fileno(), older[-1])
    if torn or not line:
        raise LogError(f"route log {older[-1]}: was cut short after it was rotated away; see `log verify`")
    return _head_of(older[-1], line)


def _first_of(path: Path) -> int:
    with open_file(path) as log:
        try:
            line = next(log.lines()).data
            return link(line, parse(line)).seq
        except MalformedLine as error:
            raise LogError(f"route log {path}: its first line {error}; see `log verify`, move it away") from None


def _set_aside(torn: bytes, file: int, aside: Path) -> None:
    # On the disk before the log lets go of it: these bytes are evidence.
    with open(aside, "ab") as kept:
        kept.write(torn)
        kept.flush()
        os.fsync(kept.fileno())
    os.ftruncate(file, os.fstat(file).st_size - len(torn))


def _torn_mark(aside: Path) -> dict[str, Any]:
    # Looked for rather than remembered: a crash may have come between the mending and the line that tells of it.
    if not aside.exists():
        return {}
    return {"torn": {"bytes": aside.stat().st_size, "sha256": digest_file(aside)}}
