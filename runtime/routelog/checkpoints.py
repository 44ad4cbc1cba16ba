"""Signed checkpoints: what the log has said of itself to others, so that it cannot say something else later.

A checkpoint (https://c2sp.org/tlog-checkpoint) is a signed note of three lines: name of the log, number of its last
line, and that line's hash in base64. The hash is the head of the chain, not the root of a tree: it holds all lines up
to its own. A log's checkpoints lie beside it, one after the other, five lines each.
"""

from __future__ import annotations

import base64
import binascii
import errno
import itertools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hardroute.runtime.errors import LogError
from hardroute.runtime.routelog.chain import GENESIS, Head
from hardroute.runtime.routelog.files import open_file
from hardroute.runtime.routelog.signed_note import MalformedNote, Note, Signer, Verifier, is_name

LINES: Final = 5
MAX_BYTES: Final = 2048  # of one
MAX_KEPT: Final = 1 << 20  # bytes of a file of kept ones
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,17}")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says.

    Attributes:
        origin: name of the log.
        head: number and hash of its last line then.
    """

    origin: str
    head: Head

    @classmethod
    def parse(cls, note: Note) -> Checkpoint:
        """Reads a note's text. Lines after the third are for others. Raises MalformedNote."""
        origin, size, encoded, *_ = [*note.text.split("\n"), "", "", ""]
        try:
            root = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            root = b""
        if not is_name(origin) or not _SIZE.fullmatch(size) or len(root) != 32:
            raise MalformedNote("is not name, size and hash of a log")
        return cls(origin, Head(int(size), root.hex()))

    def text(self) -> str:
        """The lines that are signed."""
        return f"{self.origin}\n{self.head.seq}\n{base64.b64encode(bytes.fromhex(self.head.hash)).decode()}\n"


@dataclass(frozen=True, order=True)
class Stated:
    """A checkpoint, how to speak of it, and whether somebody kept it elsewhere; in the order of the lines."""

    head: Head
    where: str
    kept: bool = False


def checkpoints_name(path: Path) -> Path:
    """Where the checkpoints of the log `path` lie."""
    return path.with_name(f"{path.name}.checkpoints")


def default_origin(path: Path) -> str:
    """What a log is called that has been given no name."""
    return "hardroute/" + re.sub(r"[^A-Za-z0-9._-]", "_", path.name)[:100]


class CheckpointFile:
    """Signs the head of a log and appends that to a file beside the log. Not thread-safe.

    Args:
        log: the log's newest file, links followed.
        signer: its name is the log's.

    Attributes:
        latest: the last checkpoint, as it is published; None before the first.
        head: that it speaks of.

    Raises:
        LogError: the file cannot be read, or is none of checkpoints.
    """

    def __init__(self, log: Path, signer: Signer) -> None:
        self.path, self._signer = checkpoints_name(log), signer
        self.latest, _ = _last(self.path)
        self.head = Checkpoint.parse(Note.parse(self.latest)).head if self.latest else GENESIS

    def check(self, head: Head) -> None:
        """Raises LogError where the log, which ends with `head`, does not go as far as it has signed."""
        if head.seq < self.head.seq or (head.seq == self.head.seq and head.hash != self.head.hash):
            raise LogError(
                f"checkpoints {self.path}: were signed up to seq {self.head.seq}, and the log ends with seq {head.seq} "
                "or with another hash: it was cut off, deleted or written anew; move the log and its checkpoints away "
                "together"
            )

    def sign(self, head: Head) -> None:
        """Appends a checkpoint, whole. Raises LogError: nothing of it is left."""
        note = str(self._signer.sign(Checkpoint(self._signer.name, head).text()))
        data = note.encode()
        try:
            _, whole = _last(self.path)
            # Opened each time: somebody may have moved it away since.
            with open(self.path, "ab", buffering=0) as file:
                if os.fstat(file.fileno()).st_size > whole:
                    _logger.warning("%s: half a checkpoint that a crash left is removed", self.path)
                    file.truncate(whole)
                try:
                    written = file.write(data)
                    if written < len(data):
                        raise OSError(errno.ENOSPC, f"{written} of {len(data)} bytes fitted; is the disk full?")
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(whole)
                    raise
        except OSError as error:
            raise LogError(f"checkpoints {self.path}: cannot be written: {error.strerror}") from None
        self.latest, self.head = note, head


def read_kept(path: Path, keys: Sequence[Verifier]) -> list[Stated]:
    """Checkpoints that somebody kept: one or several after another, from `FILE.checkpoints` or HTTP.

    Raises:
        LogError: the file cannot be read, holds something else, or none of the keys has signed one of them.
    """
    found: list[Stated] = []
    with open_file(path) as file:
        if file.size > MAX_KEPT:
            raise LogError(f"checkpoint {path}: is longer than {MAX_KEPT} bytes; give the last ones in it")
        text = file.file.read(MAX_KEPT)
    try:
        notes = _split(text.decode())
        for number, note in enumerate(map(Note.parse, notes), 1):
            where = f"checkpoint {path}" + (f" number {number}" if len(notes) > 1 else "")
            if not any(key.accepts(note) for key in keys):
                raise LogError(f"{where}: is not signed by the key; give the key of that log, or another checkpoint")
            found.append(Stated(Checkpoint.parse(note).head, where, kept=True))
    except (MalformedNote, UnicodeDecodeError) as error:
        said = error if isinstance(error, MalformedNote) else "is no text"
        raise LogError(f"checkpoint {path}: {said}; name a file that holds signed checkpoints") from None
    return found


def read_own(path: Path, keys: Sequence[Verifier]) -> Iterator[Stated | str]:
    """The checkpoints beside a log, in bounded memory; a text in place of one that cannot be trusted.

    Args:
        path: of the checkpoints; there need be none.

    Raises:
        LogError: the file cannot be read.
    """
    if not path.exists():
        return
    with open_file(path) as file:
        before, left = GENESIS, file.size
        for number in itertools.count(1):
            lines = []
            for _ in range(LINES):
                lines.append(file.file.readline(min(left, MAX_BYTES)))
                left -= len(lines[-1])
            data = b"".join(lines)
            # A crash leaves half a checkpoint, which the next writer removes.
            if not data or (not left and not data.endswith(b"\n")):
                return
            try:
                note = Note.parse(data.decode())
                head = Checkpoint.parse(note).head
            except (MalformedNote, UnicodeDecodeError):
                yield f"{path.name} number {number}: is no checkpoint"
                return
            if not any(key.accepts(note) for key in keys):
                yield f"{path.name} number {number}: is not signed by the key"
            elif head.seq <= before.seq:
                yield f"{path.name} number {number}: is of seq {head.seq}, and follows one of {before.seq}"
            else:
                before = head
                yield Stated(head, f"{path.name} number {number}")


def _split(text: str) -> list[str]:
    if text.count("\n\n") < 2:
        return [text]  # with lines or signatures of others, perhaps
    lines = text.splitlines(keepends=True)
    return ["".join(lines[start : start + LINES]) for start in range(0, len(lines), LINES)]


def _last(path: Path) -> tuple[str | None, int]:
    """The last whole checkpoint of a file, None if there is none, and the size of all whole ones."""
    if not path.exists():
        return None, 0
    with open_file(path) as file:
        start = max(0, file.size - 2 * MAX_BYTES)
        file.file.seek(start)
        data = file.file.read(2 * MAX_BYTES)
    blank, end = data.rfind(b"\n\n"), 0
    if blank >= 0 and not (end := data.find(b"\n", blank + 2) + 1):
        # Its signature is cut off: the one before counts.
        blank = data.rfind(b"\n\n", 0, blank)
        end = data.find(b"\n", blank + 2) + 1 if blank >= 0 else 0
    try:
        if len(data) - end > MAX_BYTES or (not end and start):
            raise MalformedNote("does not end with a checkpoint")
        if not end:
            return None, 0
        note = "".join(data[:end].decode().splitlines(keepends=True)[-LINES:])
        Checkpoint.parse(Note.parse(note))
    except (MalformedNote, UnicodeDecodeError) as error:
        said = error if isinstance(error, MalformedNote) else "is no text"
        raise LogError(f"checkpoints {path}: {said}; move the file away") from None
    return note, start + end
