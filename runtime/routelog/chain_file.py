"""The newest file of a log in the hands of its one writer: whole lines go in, or nothing.

A full file makes room: it is renamed after its first line, and the oldest go.
"""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

from hardroute.runtime.errors import LogError
from hardroute.runtime.routelog.chain import Head, seal
from hardroute.runtime.routelog.files import first_seq, rotated_files, rotated_name
from hardroute.runtime.routelog.recovery import hold, take_up
from hardroute.runtime.routelog.settings import LogSettings

_logger = logging.getLogger(__name__)


class _State(NamedTuple):
    """One attribute, set in one step: an interrupt (Ctrl-C) between write and note must not break the chain.

    Attributes:
        head: of the chain on disk, without what `undo` takes back.
        undo: size of the file before the line that is being written; None: there is no such line.
    """

    head: Head
    undo: int | None = None


class ChainFile:
    """Appends lines to a file and keeps the chain. Not thread-safe: `RouteLog` is. Every error is a LogError.

    Args:
        path: the file; made if absent. Links are followed once and for all: rotation renames the file, not the link.
        settings: when to rotate, what to keep, when to wait for the disk.
    """

    def __init__(self, path: Path, settings: LogSettings) -> None:
        self.path, self._settings = Path(os.path.realpath(path)), settings
        with self._told():
            self._file, head, self._first, self._torn = take_up(self.path)
            self._state = _State(head)
            try:
                if settings.durable:
                    _sync_folder(self.path)
            except OSError:
                self._file.close()  # and with it the lock, or nobody could try again
                raise
        _OPEN.add(self)

    @property
    def head(self) -> Head:
        return self._state.head

    def write(self, body: str, marks: dict[str, Any]) -> Head:
        """Appends one line with one write, and takes back what could not be written whole.

        Args:
            body: the record, a JSON object.
            marks: what the log itself has to say in this line.

        Returns:
            The head after it.
        """
        with self._told():
            self._take_back()
            self._find_again()
            marks = {**self._torn, **marks}
            line, size = seal(body, self.head, marks), self._size()
            limit = self._settings.max_bytes
            if limit is not None and size > 0 and size + len(line) > limit:
                self._begin_next()
                size = 0
            doomed, kept = _surplus(self.path, self._settings.keep) if size == 0 else ([], [])
            if doomed:
                # The log says itself where it will begin, so a file that somebody else removes is still missed.
                line = seal(body, self.head, {**marks, "oldest": _oldest(kept, self.head.seq + 1)})
            self._state = _State(self.head, undo=size)
            try:
                self._put(line)
            except OSError:
                self._try_to_take_back()
                raise
            if size == 0:
                self._first = self.head.seq + 1
            self._state = _State(self.head.after(line))
            self._torn = {}
            for file in doomed:
                try:
                    file.unlink()
                except OSError as error:
                    _logger.warning("%s cannot be removed, and will be tried again: %s", file, error.strerror)
            return self.head

    def sync(self) -> None:
        """Returns once all that was written is on the disk."""
        with self._told():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file and gives the lock back, even if a forked child still has the file open."""
        if not self._file.closed:
            self._try_to_take_back()
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()

    def _put(self, line: bytes) -> None:
        written = os.write(self._file.fileno(), line)
        if written < len(line):
            raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes fitted; is the disk full?")
        if self._settings.sync == "each":
            os.fsync(self._file.fileno())

    def _take_back(self) -> None:
        if self._state.undo is not None:
            os.ftruncate(self._file.fileno(), self._state.undo)
            self._state = _State(self.head)

    def _try_to_take_back(self) -> None:
        try:
            self._take_back()
        except OSError as error:
            # Before the next line it is tried again, and whoever opens the file next finds a torn line and says so.
            _logger.warning("route log %s: half a line stays for now: %s", self.path, error.strerror)

    def _find_again(self) -> None:
        """Goes on in a new file where somebody moved or deleted this one; `log verify` misses what is gone."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
                return
        found = take_up(self.path)
        if found.head != self.head and os.fstat(found.file.fileno()).st_size:
            found.file.close()
            raise LogError(f"route log {self.path}: another file lies in its place; move that away")
        self._file.close()
        self._file, self._torn = found.file, found.torn
        self._first = found.first if found.head == self.head else self.head.seq + 1

    def _begin_next(self) -> None:
        if self._settings.durable:
            os.fsync(self._file.fileno())
        full, self._file = self._file, _rotate(self.path, self._first)
        full.close()
        if self._settings.durable:
            _sync_folder(self.path)

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _abandon(self) -> None:
        self._file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LogError(f"route log {self.path}: cannot be written: {error.strerror}") from None


_OPEN: WeakSet[ChainFile] = WeakSet()


def _let_go() -> None:
    for file in _OPEN:
        file._abandon()


# The lock belongs to whoever has the file open: a forked child must not keep it when its parent is gone.
os.register_at_fork(after_in_child=_let_go)


def _rotate(path: Path, first: int) -> io.FileIO:
    """Renames the file and puts an empty one, locked, in its place.

    The path is never without a file and never has one without a lock, so a second writer finds no gap to slip into;
    wherever a crash stops this, `take_up` goes on.

    Args:
        path: the full file, locked by the caller, who may close it afterwards.
        first: number of its first line.

    Raises:
        LogError: there is a file of the new name.
        OSError: the system refused; nothing has changed for a reader.
    """
    rotated, fresh = rotated_name(path, first), path.with_name(f"{path.name}.next")
    with suppress(FileNotFoundError):
        fresh.unlink()
    file = hold(fresh)
    try:
        try:
            os.link(path, rotated)
        except FileExistsError:
            # Its own name from a rotation that could not be finished is welcome.
            if not rotated.samefile(path):
                raise LogError(f"route log {path}: will not write over {rotated}; move that away") from None
        os.rename(fresh, path)
    except BaseException:
        file.close()
        raise
    return file


def _surplus(path: Path, keep: int | None) -> tuple[list[Path], list[Path]]:
    """The rotated files, oldest first: those that must go so that `keep` are left (None: all), and the others."""
    if keep is None:
        return [], []
    older = rotated_files(path)
    cut = max(0, len(older) - keep)
    return older[:cut], older[cut:]


def _oldest(kept: list[Path], following: int) -> int:
    """Number of the first line that is left when the files `kept` are; `following`: of the line after them."""
    seq = first_seq(kept[0]) if kept else None
    return following if seq is None else seq


def _sync_folder(path: Path) -> None:
    """Returns once the names in the file's folder are on the disk."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
