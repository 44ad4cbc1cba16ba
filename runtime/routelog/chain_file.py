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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple
from weakref import WeakSet

from hardroute.runtime.errors import LogError
from hardroute.runtime.routelog.chain import Head, seal
from hardroute.runtime.routelog.files import first_seq, rotated_files, rotated_name
from hardroute.runtime.routelog.record import goes_back
from hardroute.runtime.routelog.recovery import hold, take_up
from hardroute.runtime.routelog.settings import LogSettings

_logger = logging.getLogger(__name__)

#: "missing" goes on in a new file with the next line; with "replaced" and "changed" no line is taken.
Place = Literal["same", "missing", "replaced", "changed"]


class _State(NamedTuple):
    """One attribute, set in one step: an interrupt (Ctrl-C) between write and note must not break the chain.

    Attributes:
        head: of the chain on disk, without the line that is being written.
        size: of the file without that line.
        writing: whether there is such a line, or a part of it, to be taken back.
    """

    head: Head
    size: int
    writing: bool = False


class ChainFile:
    """Appends lines to a file and keeps the chain. Not thread-safe: `RouteLog` is. Every error is a LogError.

    Args:
        path: the file; made if absent. Links are followed once and for all: rotation renames the file, not the link.
        settings: when to rotate, what to keep, when to wait for the disk.

    Attributes:
        displaced: how often another program had moved, deleted or emptied the file.
    """

    def __init__(self, path: Path, settings: LogSettings) -> None:
        self.path, self._settings = Path(os.path.realpath(path)), settings
        self.displaced = 0
        with self._told():
            found = take_up(self.path)
            self._file, head, self._first, self._owed = found.file, found.head, found.first, found.torn
            self._state = _State(head, self._size())
            self._clock = found.time or datetime.min.replace(tzinfo=UTC)
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
            self._watch_clock()
            marks = {**self._owed, **marks}
            line, size = seal(body, self.head, marks), self._size()
            limit = self._settings.max_bytes
            if limit is not None and size > 0 and size + len(line) > limit:
                self._begin_next()
                size = 0
            doomed, kept = _surplus(self.path, self._settings.keep) if size == 0 else ([], [])
            if doomed:
                # The log says itself where it will begin, so a file that somebody else removes is still missed.
                line = seal(body, self.head, {**marks, "oldest": _oldest(kept, self.head.seq + 1)})
            self._state = _State(self.head, size, writing=True)
            try:
                self._put(line)
            except OSError:
                self._try_to_take_back()
                raise
            if size == 0:
                self._first = self.head.seq + 1
            self._state = _State(self.head.after(line), size + len(line))
            self._owed = {}
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
        if self._state.writing:
            os.ftruncate(self._file.fileno(), self._state.size)
            self._state = _State(self.head, self._state.size)

    def _try_to_take_back(self) -> None:
        try:
            self._take_back()
        except OSError as error:
            # Before the next line it is tried again, and whoever opens the file next finds a torn line and says so.
            _logger.warning("route log %s: half a line stays for now: %s", self.path, error.strerror)

    @property
    def place(self) -> Place:
        """What lies at the path now; to be asked while nobody writes."""
        try:
            status = os.stat(self.path)
        except OSError:
            return "missing"
        if not os.path.samestat(status, os.fstat(self._file.fileno())):
            return "replaced" if status.st_size else "missing"
        if self._state.writing or status.st_size == self._state.size:
            return "same"
        return "changed" if status.st_size else "missing"

    def _find_again(self) -> None:
        """Goes on in a new file where somebody moved or deleted this one; `log verify` misses what is gone."""
        place = self.place
        if place == "same":
            return
        if place == "changed":
            raise LogError(f"route log {self.path}: another program has written into it; move it away")
        if self._holds_path():  # and has emptied it
            self._state = _State(self.head, 0)
        else:
            found = take_up(self.path)
            if found.head != self.head and os.fstat(found.file.fileno()).st_size:
                found.file.close()
                raise LogError(f"route log {self.path}: another file lies in its place; move that away")
            self._file.close()
            self._file, self._owed = found.file, {**self._owed, **found.torn}
            self._first = found.first if found.head == self.head else self.head.seq + 1
            self._state = _State(self.head, self._size())
        self.displaced += 1
        self._owed["displaced"] = True
        _logger.error(
            "route log %s: another program has moved, deleted or emptied it; it goes on with seq %d",
            self.path,
            self.head.seq + 1,
        )

    def _holds_path(self) -> bool:
        with suppress(FileNotFoundError):
            return os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        return False

    def _watch_clock(self) -> None:
        now = datetime.now(UTC)
        if goes_back(self._clock, now):
            _logger.warning("route log %s: the clock went back from %s to %s", self.path, self._clock, now)
        self._clock = now

    def _begin_next(self) -> None:
        if self._settings.durable:
            os.fsync(self._file.fileno())
        full, self._file = self._file, _rotate(self.path, self._first)
        self._state = _State(self.head, 0)
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
