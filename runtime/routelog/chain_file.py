"""The newest file of a log in the hands of its one writer: whole lines go in, or nothing."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.routelog.chain import Head, seal
from hardroute.runtime.routelog.recovery import take_up
from hardroute.runtime.routelog.rotation import oldest, rotate, surplus, sync_folder
from hardroute.runtime.routelog.settings import Options


class _State(NamedTuple):
    """One attribute, set in one step: an interrupt (Ctrl-C) between write and note must not break the chain.

    Attributes:
        head: of the chain on disk, without what `undo` takes back.
        undo: size of the file before the line that is being written; None: there is no such line.
    """

    head: Head
    undo: int | None = None


class ChainFile:
    """Appends lines to a file and keeps the chain. Not thread-safe: `RouteLog` is. Every error is a HardrouteError.

    Args:
        path: the file; made if absent. Links are followed once and for all: rotation renames the file, not the link.
        options: when to rotate, what to keep, when to wait for the disk.
    """

    def __init__(self, path: Path, options: Options) -> None:
        self.path, self._options = Path(os.path.realpath(path)), options
        with self._told():
            self._file, head, self._first, self._torn = take_up(self.path)
            self._state = _State(head)
            if options.durable:
                sync_folder(self.path)
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
            limit = self._options.max_bytes
            if limit is not None and size > 0 and size + len(line) > limit:
                self._rotate()
                size = 0
            doomed, kept = surplus(self.path, self._options.keep) if size == 0 else ([], [])
            if doomed:
                # The log says itself where it will begin, so a file that somebody else removes is still missed.
                line = seal(body, self.head, {**marks, "oldest": oldest(kept, self.head.seq + 1)})
            self._state = _State(self.head, undo=size)
            try:
                self._put(line)
            except OSError:
                with suppress(OSError):
                    self._take_back()  # or else before the next line
                raise
            if size == 0:
                self._first = self.head.seq + 1
            self._state = _State(self.head.after(line))
            self._torn = {}
            for file in doomed:
                # One that cannot be removed is tried again when the next file begins.
                with suppress(OSError):
                    file.unlink()
            return self.head

    def sync(self) -> None:
        """Returns once all that was written is on the disk."""
        with self._told():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file and gives the lock back, even if a forked child still has the file open."""
        if not self._file.closed:
            with suppress(OSError):
                self._take_back()
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()

    def _put(self, line: bytes) -> None:
        written = os.write(self._file.fileno(), line)
        if written < len(line):
            raise OSError(errno.ENOSPC, f"{written} of {len(line)} bytes fitted; is the disk full?")
        if self._options.sync == "each":
            os.fsync(self._file.fileno())

    def _take_back(self) -> None:
        if self._state.undo is not None:
            os.ftruncate(self._file.fileno(), self._state.undo)
            self._state = _State(self.head)

    def _find_again(self) -> None:
        """Goes on in a new file where somebody moved or deleted this one; `log verify` misses what is gone."""
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno())):
                return
        found = take_up(self.path)
        if found.head != self.head and os.fstat(found.file.fileno()).st_size:
            found.file.close()
            raise HardrouteError(f"route log {self.path}: another file lies in its place; move that away")
        self._file.close()
        self._file, self._torn = found.file, found.torn
        self._first = found.first if found.head == self.head else self.head.seq + 1

    def _rotate(self) -> None:
        if self._options.durable:
            os.fsync(self._file.fileno())
        full, self._file = self._file, rotate(self.path, self._first)
        full.close()
        if self._options.durable:
            sync_folder(self.path)

    def _size(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _abandon(self) -> None:
        self._file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise HardrouteError(f"route log {self.path}: cannot be written: {error.strerror}") from None


_OPEN: WeakSet[ChainFile] = WeakSet()


def _let_go() -> None:
    for file in _OPEN:
        file._abandon()


# The lock belongs to whoever has the file open: a forked child must not keep it when its parent is gone.
os.register_at_fork(after_in_child=_let_go)
