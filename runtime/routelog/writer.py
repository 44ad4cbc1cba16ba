"""`RouteLog`: the log as a service uses it."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from hardroute.runtime.errors import LogError
from hardroute.runtime.routelog.chain import GENESIS
from hardroute.runtime.routelog.chain_file import ChainFile, Place
from hardroute.runtime.routelog.checkpoints import CheckpointFile, default_origin
from hardroute.runtime.routelog.files import rotated_files
from hardroute.runtime.routelog.receipt import Receipt
from hardroute.runtime.routelog.record import EventRecord, Record
from hardroute.runtime.routelog.settings import LogSettings
from hardroute.runtime.routelog.signed_note import Signer

_logger = logging.getLogger(__name__)


class RouteLog:
    """A file of JSON lines, each with the hash of the one before; `python -m runtime log verify` checks it.

    One writer per file: a lock says so to a second one. Reading while it is written is fine. Threads may share a log;
    a forked process must open one of its own. Nothing is created before the first record.

    Lines that could not be written are counted, and the next line that can be carries the number as `lost`.

    Args:
        path: the file; its folder must exist.
        max_bytes: a line that would make the file larger starts a new one; the full one is renamed to
            `PATH.000000000001` (the number of its first line). None: one file for ever.
        keep: how many renamed files stay; None: all.
        sync: when lines must be on the disk and not only with the system: "none" (a SIGKILL loses nothing, a power
            cut may), "each" before `append` returns, or at most so many seconds later.
        queue: how many submitted records may wait; one more is lost, for inference must not wait for a disk.
        key: PEM file with an ed25519 private key. With it the head is signed now and then, and that appended to
            `PATH.checkpoints`: whoever has one of these checkpoints can tell whether a line up to it was changed.
        checkpoint_every: lines from one checkpoint to the next; `close` signs one too.
        origin: name of the log in its checkpoints; None: "hardroute/" and the file's name.

    Raises:
        LogError: the log cannot be written there, another writer has it, or it ends before its last checkpoint; said
            before any clip is classified.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int | None = None,
        keep: int | None = None,
        sync: Literal["none", "each"] | float = "none",
        queue: int = 4096,
        key: str | Path | None = None,
        checkpoint_every: int = 100,
        origin: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._settings = LogSettings(
            max_bytes=max_bytes,
            keep=keep,
            sync=sync,
            queue=queue,
            key=None if key is None else Path(key),
            checkpoint_every=checkpoint_every,
            origin=origin,
        )
        _check_place(self.path)
        self._pid, self._closed = os.getpid(), False
        self._writing, self._counting = threading.Lock(), threading.Lock()
        self._written = self._lost = 0
        self._unsaid = 0  # lost, and no line says so yet
        self._dirty = self._unsynced = 0  # lines since the last fsync; lines whose fsync failed
        self._timer: threading.Timer | None = None
        real = Path(os.path.realpath(self.path))
        self._checkpoints: CheckpointFile | None = None
        if key is not None:
            self._checkpoints = CheckpointFile(real, Signer(origin or default_origin(self.path), key))
        self._signed, self._unsigned = 0, 0  # checkpoints; lines since the last attempt to sign one
        self._room = threading.BoundedSemaphore(queue)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="route-log")
        begun = self.path.exists() or rotated_files(real)
        self._disk = ChainFile(self.path, self._settings) if begun else None
        if self._checkpoints:
            try:
                self._checkpoints.check(self._disk.head if self._disk else GENESIS)
            except LogError:
                if self._disk:
                    self._disk.close()
                raise

    @property
    def head(self) -> str:
        """SHA-256 of the last line, hex. Kept elsewhere, it later shows that the log was not cut short before it."""
        return (self._disk.head if self._disk else GENESIS).hash

    @property
    def seq(self) -> int:
        """The number of the last line; 0 before the first."""
        return (self._disk.head if self._disk else GENESIS).seq

    @property
    def written(self) -> int:
        """Lines that this object has written."""
        return self._written

    @property
    def lost(self) -> int:
        """Records handed to this object that have not become a line."""
        return self._lost

    @property
    def checkpoint(self) -> str | None:
        """The last signed checkpoint, a signed note; None where there is none."""
        return self._checkpoints.latest if self._checkpoints else None

    @property
    def signed(self) -> int:
        """Checkpoints that this object has signed."""
        return self._signed

    @property
    def signed_seq(self) -> int:
        """Number of the last line that a checkpoint holds; 0: none is."""
        return self._checkpoints.head.seq if self._checkpoints else 0

    @property
    def displaced(self) -> int:
        """How often another program moved, deleted or emptied the file since this object opened it."""
        return self._disk.displaced if self._disk else 0

    @property
    def place(self) -> Place:
        """What lies at the path now; see `Place`. Waits a second at most for a line that is being written."""
        if not self._disk or self._disk.place == "same":
            return "same"
        # A rotation looks the same for a moment.
        if not self._writing.acquire(timeout=1):
            return "same"
        try:
            return self._disk.place
        finally:
            self._writing.release()

    def append(self, record: Record) -> Receipt:
        """Writes one line now, ahead of records that were submitted and still wait.

        Returns:
            The head after it, as text, with the line's `seq`.

        Raises:
            LogError: the line could not be written (a full disk, say); nothing of it is left in the file.
        """
        self._check_usable()
        with self._writing:
            self._check_usable()  # it may have been closed meanwhile
            return self._write(record)

    def submit(self, record: Record) -> Future[Receipt]:
        """Hands a record to the writer thread, in order, and does not wait.

        Returns:
            The head after its line, or the LogError that `append` would have raised.
        """
        self._check_usable()
        if not self._room.acquire(blocking=False):
            self._lose()
            dropped: Future[Receipt] = Future()
            dropped.set_exception(LogError(f"route log {self.path}: too many records wait; this one is lost"))
            return dropped
        try:
            future = self._thread.submit(self.append, record)
        except RuntimeError:  # closed since the check
            self._room.release()
            raise LogError(f"route log {self.path}: is closed") from None
        future.add_done_callback(self._done)
        return future

    def flush(self) -> None:
        """Returns once all that was submitted is written, or lost; and on the disk unless `sync` is "none"."""
        self._check_usable()
        self._thread.submit(int).result()
        with self._writing:
            self._sync()

    def close(self) -> None:
        """Writes what still waits and closes the file. In a forked child it only forgets the log.

        Raises:
            LogError: records were lost and no line could be written that says so, or the disk failed.
        """
        if self._closed or self._pid != os.getpid():
            return
        self._thread.shutdown()
        with self._writing:
            try:
                if self._unsaid:
                    self._write(EventRecord.now("lost"))
                self._sync()
                if self._disk and self._checkpoints and self._checkpoints.head != self._disk.head:
                    self._sign()
            finally:
                self._closed = True
                if self._timer:
                    self._timer.cancel()
                if self._disk:
                    self._disk.close()

    def __enter__(self) -> RouteLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except LogError as error:
            if kind is None:
                raise
            # What went wrong first is what a person must hear of.
            _logger.error("%s", error)

    def _write(self, record: Record) -> Receipt:
        unsaid, unsynced = self._unsaid, self._unsynced
        marks = {name: count for name, count in (("lost", unsaid), ("unsynced", unsynced)) if count}
        try:
            self._disk = self._disk or ChainFile(self.path, self._settings)
            head = self._disk.write(record.to_json(), marks)
        except BaseException:
            self._lose()
            raise
        with self._counting:
            self._unsaid -= unsaid
        self._unsynced = 0
        self._written += 1
        self._dirty += 1
        if self._settings.seconds and not self._timer:
            self._timer = threading.Timer(self._settings.seconds, self._sync_later)
            self._timer.daemon = True
            self._timer.start()
        self._unsigned += 1
        # Counted from the last attempt: a disk that stays full must not be tried at every line.
        if self._checkpoints and self._unsigned >= self._settings.checkpoint_every:
            try:
                self._sign()
            except LogError as error:
                _logger.error("%s; the line itself is written", error)
        return Receipt(head)

    def _sign(self) -> None:
        if self._disk and self._checkpoints:
            self._unsigned = 0
            # What a power cut can still take must not be signed.
            self._disk.sync()
            self._checkpoints.sign(self._disk.head)
            self._signed += 1

    def _sync(self) -> None:
        if self._disk and self._dirty and self._settings.durable:
            dirty, self._dirty = self._dirty, 0
            try:
                self._disk.sync()
            except LogError:
                self._unsynced += dirty
                raise

    def _sync_later(self) -> None:
        with self._writing:
            self._timer = None
            if not self._closed:
                try:
                    self._sync()
                except LogError as error:
                    _logger.error("%s; the next line says how many lines that is about", error)

    def _done(self, future: Future[Receipt]) -> None:
        self._room.release()
        if future.cancelled():
            self._lose()

    def _lose(self) -> None:
        # Under a lock of its own: whoever holds the other one may be waiting for the disk.
        with self._counting:
            self._lost += 1
            self._unsaid += 1
            lost = self._lost
        # Once for 1, 2, 4, 8, ... of them: a disk that stays full must not fill the other log too.
        if lost & (lost - 1) == 0:
            _logger.error("route log %s: %d records have not become a line so far", self.path, lost)

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise LogError(f"route log {self.path}: was opened by process {self._pid}; open one in this process")
        if self._closed:
            raise LogError(f"route log {self.path}: is closed")


def _check_place(path: Path) -> None:
    """Raises LogError where no log can be written; makes nothing."""
    if not path.parent.is_dir():
        raise LogError(f"route log {path}: no such folder {path.parent}; create it first")
    if path.is_dir():
        raise LogError(f"route log {path}: is a folder; name a file in it")
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise LogError(f"route log {path}: no permission to write {target}")
