"""Is this the log that was written? Finds lines that were changed, dropped, inserted, repeated or moved."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from hardroute.runtime.errors import LogError
from hardroute.runtime.routelog.chain import (
    GENESIS,
    MAX_LINE,
    Head,
    MalformedLine,
    could_be_torn,
    count_of,
    digest,
    link,
    parse,
)
from hardroute.runtime.routelog.checkpoints import Stated, checkpoints_name, read_kept, read_own
from hardroute.runtime.routelog.files import Line, LogFile, digest_file, first_seq, newest_name, open_files, torn_name
from hardroute.runtime.routelog.record import goes_back, time_of
from hardroute.runtime.routelog.signed_note import Verifier

_SHOWN: Final = 20


@dataclass
class Report:
    """What a check of a log found.

    Attributes:
        files, lines: how many were read.
        first: number of the first line; None where there is no line.
        head: after the last line; keep it elsewhere.
        breaks: one sentence each, with file and line; the first 20 of `broken`.
        broken: how many there are; 0: the log is whole.
        oldest: where the log begins by its own account, because `keep` removed older files.
        lost, torn, unsynced: lines that the log says could not be written; were cut off; may have missed the disk.
        tail: bytes after the last line: a line in flight, or one that a crash cut off and nobody has mended yet.
        clock_back: lines whose time is more than a second before that of the line before; no break.
        displaced: lines before which another program had moved, deleted or emptied the file, as the log says.
        remarks: one sentence each about what is no break, but somebody should know; 20 of each kind at most.
        signed: signed checkpoints that the log agrees with.
        signed_seq: number of the last line that these hold.
        older: checkpoints of lines before the first that is left, which cannot be compared.
    """

    files: int = 0
    lines: int = 0
    first: int | None = None
    head: Head = GENESIS
    breaks: list[str] = field(default_factory=list)
    broken: int = 0
    oldest: int = 1
    lost: int = 0
    torn: int = 0
    unsynced: int = 0
    tail: int = 0
    clock_back: int = 0
    displaced: int = 0
    remarks: list[str] = field(default_factory=list)
    signed: int = 0
    signed_seq: int = 0
    older: int = 0

    def add(self, path: Path, number: int, what: str) -> None:
        """Notes a break at a line."""
        self.add_sentence(f"{path} line {number}: {what}")

    def add_sentence(self, what: str) -> None:
        """Notes a break that is at no line."""
        self.broken += 1
        if len(self.breaks) < _SHOWN:
            self.breaks.append(what)


def verify_log(
    paths: Sequence[str | Path],
    *,
    head: tuple[str, int | None] | None = None,
    start: int = 1,
    keys: Sequence[str | Path] = (),
    checkpoints: Sequence[str | Path] = (),
) -> Report:
    """Checks the chain from the first line to the last, in bounded memory.

    Whoever can write the files can also write a new chain, or cut off the end of this one. Against that, keep `head`
    or a checkpoint where they cannot write.

    Args:
        paths: of the log, whose rotated files are found; or of several files that are to be taken for the whole.
        head: (hash, number of its line or None) noted earlier: that line must be there.
        start: older lines are known to be elsewhere: the log may begin with this number.
        keys: PEM files with ed25519 public keys of the log. With one, the checkpoints beside the log are checked too.
        checkpoints: files with checkpoints that somebody kept, each signed by one of the keys.

    Raises:
        LogError: a file cannot be read, `head` is older than all that is left, a checkpoint that was kept is not signed
            by one of the keys or is older than all that is left, or there is no key for it.
    """
    if checkpoints and not keys:
        raise LogError("a checkpoint says nothing without the public key of the log; give that too")
    verifiers = [Verifier(key) for key in keys]
    kept = sorted(one for path in checkpoints for one in read_kept(Path(path), verifiers))
    own: Iterator[Stated | str] = iter(())
    if verifiers:
        own = read_own(checkpoints_name(newest_name(Path(os.path.realpath(paths[-1])))), verifiers)
    check = _Check(head, kept, own)
    for log in open_files([Path(path) for path in paths]):
        check.file(log)
    if len(paths) == 1 and not Path(paths[0]).exists():
        check.miss_newest(Path(paths[0]))
    return check.finish(start)


class _Check:
    def __init__(
        self, wanted: tuple[str, int | None] | None, kept: Sequence[Stated], own: Iterator[Stated | str]
    ) -> None:
        self.report, self._wanted, self._found = Report(), wanted, wanted is None
        self._time: datetime | None = None
        self._begin = self._end = (Path(), 0)  # file and number of the first and last line
        # Both are in the order of the lines, so that neither has to be held in memory.
        self._stated = heapq.merge(kept, self._trusted(own))
        self._next = next(self._stated, None)
        self._look_for(GENESIS)

    def file(self, log: LogFile) -> None:
        report = self.report
        if report.tail:
            report.add(*self._end, f"ends with {report.tail} bytes without a line break, and yet another file follows")
            report.tail = 0
        report.files += 1
        self._end = (log.path, 0)
        for line in log.lines():
            self._end = (log.path, line.number)
            if len(line.data) <= MAX_LINE and not line.data.endswith(b"\n"):
                if not could_be_torn(line.data):
                    report.add(*self._end, "ends with bytes that the log did not write")
                report.tail = len(line.data)
                return
            self._line(log.path, line)

    def miss_newest(self, path: Path) -> None:
        # A rotation never leaves a log without it, wherever a crash stops that.
        self.report.add(*self._end, f"the newest file, {path.name}, is gone; nobody can tell how many lines were in it")

    def finish(self, start: int) -> Report:
        report, begins = self.report, max(start, self.report.oldest)
        if report.first is not None and report.first > begins:
            report.add(*self._begin, f"the log begins with seq {report.first}; nothing says where {begins} and on went")
        if not self._found and self._wanted:
            self._miss(*self._wanted)
        while self._next:
            report.add(
                *self._end,
                f"the log ends with seq {report.head.seq}, and {self._next.where} is of seq {self._next.head.seq}: "
                "its end was cut off",
            )
            self._next = next(self._stated, None)
        return report

    def _line(self, path: Path, line: Line) -> None:
        report = self.report
        report.lines += 1
        try:
            fields = parse(line.data)
            stated = link(line.data, fields)
        except MalformedLine as error:
            report.add(path, line.number, str(error))
            # It takes a place all the same: the next line tells whether it was changed or put in.
            report.head = report.head.after(line.data)
            return
        if report.first is None:
            report.first, self._begin = stated.seq, (path, line.number)
            if report.lines == 1:
                report.head = Head(stated.seq - 1, stated.hash if stated.seq > 1 else GENESIS.hash)
                self._look_for(report.head)
        if what := _gap(report.head, stated) or _misnamed(path, line, stated.seq):
            report.add(path, line.number, what)
        self._marks(path, line.number, stated.seq, fields)
        self._clock(path, line.number, fields)
        report.head = Head(stated.seq, digest(line.data))
        self._look_for(report.head)

    def _marks(self, path: Path, number: int, seq: int, fields: dict[str, Any]) -> None:
        report = self.report
        report.lost += count_of(fields, "lost")
        report.unsynced += count_of(fields, "unsynced")
        report.oldest = max(report.oldest, min(count_of(fields, "oldest"), seq))
        if fields.get("displaced") is True:
            report.displaced += 1
            self._remark(report.displaced, path, number, "before it another program moved, deleted or emptied the file")
        torn = fields.get("torn")
        if isinstance(torn, dict):
            report.torn += 1
            aside = torn_name(newest_name(path), seq)
            if aside.exists() and digest_file(aside) != torn.get("sha256"):
                report.add(path, number, f"{aside.name} is not what was cut off before this line")

    def _clock(self, path: Path, number: int, fields: dict[str, Any]) -> None:
        time = time_of(fields)
        if time and self._time and goes_back(self._time, time):
            self.report.clock_back += 1
            back = (self._time - time).total_seconds()
            self._remark(self.report.clock_back, path, number, f"the clock went back by {back:.1f} s")
        self._time = time or self._time

    def _remark(self, count: int, path: Path, number: int, what: str) -> None:
        if count <= _SHOWN:
            self.report.remarks.append(f"{path} line {number}: {what}")

    def _trusted(self, own: Iterator[Stated | str]) -> Iterator[Stated]:
        for one in own:
            if isinstance(one, Stated):
                yield one
            else:
                self.report.add_sentence(one)

    def _look_for(self, head: Head) -> None:
        if self._wanted and self._wanted[0] == head.hash and self._wanted[1] in (None, head.seq):
            self._found = True
        self._agree(head)

    def _agree(self, head: Head) -> None:
        """Compares the checkpoints up to `head`, where the chain has arrived, with it."""
        report = self.report
        while self._next and self._next.head.seq <= head.seq:
            stated = self._next
            if stated.head == head:
                report.signed += 1
                report.signed_seq = head.seq
            elif report.first is not None and stated.head.seq < report.first - 1:
                # Its line is not among those that were given. One that was kept was given to be compared.
                if stated.kept:
                    raise LogError(
                        f"{stated.where} is of seq {stated.head.seq}, and the log begins with {report.first}: "
                        "give a later checkpoint, or the older files too"
                    )
                report.older += 1
            else:
                report.add(*self._end, f"not what {stated.where} says of seq {stated.head.seq}: the log was changed")
            self._next = next(self._stated, None)

    def _miss(self, _: str, seq: int | None) -> None:
        report = self.report
        if seq is not None and report.first is not None and seq < report.first - 1:
            raise LogError(f"the head is of seq {seq}, and the log begins with {report.first}: give a later head")
        if seq is not None and seq > report.head.seq:
            what = f"the log ends with seq {report.head.seq}, and the head is of seq {seq}: its end was cut off"
        else:
            what = "no line has the hash of the head: the log was cut off before that line, or it was changed"
        report.add(*self._end, what)


def _gap(head: Head, stated: Head) -> str | None:
    """What is wrong between the chain so far and a line that states (its number, hash of the line before)."""
    if stated.seq > head.seq + 1:
        return f"seq {stated.seq} follows {head.seq}: what was between is missing"
    if stated.seq <= head.seq:
        return f"seq {stated.seq} follows {head.seq}: repeated, moved or put in"
    if stated.hash != head.hash:
        return 'its "prev" is not the hash of the line before: one of the two was changed'
    return None


def _misnamed(path: Path, line: Line, seq: int) -> str | None:
    name = first_seq(path)
    if line.number > 1 or name in (None, seq):
        return None
    return f"the file's name says that it begins with seq {name}, and it begins with {seq}"
