"""Full disks, failing disks, full queues: errors are typed and counted, and no line is lost silently."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardroute import HardrouteError, RouteLog
from hardroute.runtime.routelog import EventRecord
from hardroute.runtime.routelog import chain_file as disk
from hardroute.runtime.routelog.verify import verify_log
from tests.support.paths import ROOT
from tests.support.routelogs import record, write


class FaultyOs:
    """`os` as `hardroute.runtime.routelog.chain_file` sees it, of which single calls can be made to fail."""

    def __init__(self) -> None:
        self.write: Callable[..., int] = os.write
        self.ftruncate: Callable[..., None] = os.ftruncate
        self.fsync: Callable[..., None] = os.fsync

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> FaultyOs:
    fake = FaultyOs()
    monkeypatch.setattr(disk, "os", fake)
    return fake


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_lost_records_are_counted_in_the_next_line(tmp_path: Path, faulty: FaultyOs, number: int) -> None:
    path = tmp_path / "log"
    with RouteLog(path) as log:
        log.append(record("0"))
        faulty.write = failing(number)
        with pytest.raises(HardrouteError, match=f"{path}: cannot be written: {os.strerror(number)}"):
            log.append(record("1"))
        future = log.submit(record("2"))
        assert isinstance(future.exception(timeout=60), HardrouteError)
        faulty.write = os.write
        log.append(record("3"))
        log.append(record("4"))
        assert (log.written, log.lost, log.seq) == (3, 2, 3)
    assert [(line["clip"], line.get("lost")) for line in lines(path)] == [("0", None), ("3", 2), ("4", None)]
    report = verify_log([path])
    assert (report.broken, report.lost) == (0, 2)


def test_a_line_cut_short_is_taken_back(tmp_path: Path, faulty: FaultyOs) -> None:
    path = tmp_path / "log"
    with RouteLog(path) as log:
        log.append(record("0"))
        whole = path.read_bytes()
        faulty.write = lambda file, data: os.write(file, data[:100])
        with pytest.raises(HardrouteError, match=r"100 of \d+ bytes fitted; is the disk full"):
            log.append(record("1"))
        assert path.read_bytes() == whole
        # Nor can it be taken back now: then it is before the next line.
        faulty.ftruncate = failing(errno.EIO)
        with pytest.raises(HardrouteError, match="is the disk full"):
            log.append(record("2"))
        assert len(path.read_bytes()) == len(whole) + 100
        with pytest.raises(HardrouteError, match=os.strerror(errno.EIO)):
            log.append(record("3"))
        faulty.write, faulty.ftruncate = os.write, os.ftruncate
        log.append(record("4"))
    assert [(line["clip"], line.get("lost")) for line in lines(path)] == [("0", None), ("4", 3)]
    assert verify_log([path]).broken == 0


def test_an_interrupt_in_the_middle_of_a_write_does_not_break_the_chain(tmp_path: Path, faulty: FaultyOs) -> None:
    path = tmp_path / "log"

    def interrupted(file: int, data: bytes) -> int:
        os.write(file, data)
        raise KeyboardInterrupt

    with RouteLog(path) as log:
        log.append(record("0"))
        faulty.write = interrupted
        with pytest.raises(KeyboardInterrupt):
            log.append(record("1"))
        faulty.write = os.write
        log.append(record("2"))
    assert [line["clip"] for line in lines(path)] == ["0", "2"]
    assert verify_log([path]).broken == 0


def test_records_lost_last_have_a_line_when_the_log_is_closed(tmp_path: Path, faulty: FaultyOs) -> None:
    path = tmp_path / "log"
    log = RouteLog(path)
    faulty.write = failing(errno.ENOSPC)
    log.submit(record()).exception(timeout=60)
    faulty.write = os.write
    log.close()
    (line,) = lines(path)
    assert (line["event"], line["lost"]) == ("lost", 1)
    # And where even that cannot be written, the caller hears it, unless something else went wrong before.
    log = RouteLog(path)
    faulty.write = failing(errno.ENOSPC)
    log.submit(record()).exception(timeout=60)
    with pytest.raises(HardrouteError, match="No space left"):
        log.close()
    with pytest.raises(HardrouteError, match="is not finite"), RouteLog(path) as log:
        log.append(record(margin=math.nan))
    RouteLog(path).close()  # the lock was given back each time


def test_a_real_limit_on_the_file(tmp_path: Path) -> None:
    code = """
import resource, sys
from hardroute import HardrouteError, RouteLog
from tests.support.routelogs import record
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
lost = 0
log = RouteLog(sys.argv[1])
for n in range(12):
    try:
        log.append(record(str(n)))
    except HardrouteError as error:
        lost += 1
        said = str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append(record("after"))
log.close()
print(lost, said)
"""
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    lost, said = done.stdout.split(" ", 1)
    assert int(lost) > 3 and "bytes fitted" in said, done.stderr
    last = lines(path)[-1]
    assert (last["clip"], last["lost"]) == ("after", int(lost))
    assert (verify_log([path]).broken, verify_log([path]).lines) == (0, 13 - int(lost))


def test_each_line_waits_for_the_disk(tmp_path: Path, faulty: FaultyOs) -> None:
    path = tmp_path / "log"
    synced: list[int] = []

    def note(file: int) -> None:
        synced.append(os.fstat(file).st_size)

    faulty.fsync = note
    with RouteLog(path, sync="each") as log:
        for _ in range(3):
            log.append(record())
            assert synced[-1] == path.stat().st_size
        # A disk that does not confirm a line has not got it.
        faulty.fsync = failing(errno.EIO)
        with pytest.raises(HardrouteError, match=os.strerror(errno.EIO)):
            log.append(record())
        faulty.fsync = os.fsync
        log.append(record())
    assert [line.get("lost") for line in lines(path)] == [None, None, None, 1]
    with RouteLog(path) as log:
        faulty.fsync = failing(errno.EIO)
        log.append(record())  # not asked


def test_a_folder_that_is_not_synced_leaves_no_lock_behind(tmp_path: Path, faulty: FaultyOs) -> None:
    faulty.fsync = failing(errno.EIO)
    with RouteLog(tmp_path / "log", sync="each") as log:
        with pytest.raises(HardrouteError, match=os.strerror(errno.EIO)):
            log.append(record("0"))
        faulty.fsync = os.fsync
        log.append(record("1"))
    assert [(line["clip"], line.get("lost")) for line in lines(tmp_path / "log")] == [("1", 1)]


def test_lines_reach_the_disk_within_the_seconds_asked_for(tmp_path: Path, faulty: FaultyOs) -> None:
    path, tried = tmp_path / "log", threading.Event()

    def fail(file: int) -> None:
        if stat.S_ISREG(os.fstat(file).st_mode):
            tried.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    faulty.fsync = fail
    with RouteLog(path, sync=0.02) as log:
        log.append(record("0"))
        assert tried.wait(60)
        # Nobody was there to be told, so the next line tells it.
        with log._writing:
            pass  # until the failure is noted
        faulty.fsync = os.fsync
        log.append(record("1"))
        log.flush()
        log.append(record("2"))
        faulty.fsync = failing(errno.EIO)
        with pytest.raises(HardrouteError, match=os.strerror(errno.EIO)):
            log.flush()
        faulty.fsync = os.fsync
    assert [line.get("unsynced") for line in lines(path)][:2] == [None, 1]
    assert verify_log([path]).broken == 0


def test_submitted_records_keep_their_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with RouteLog(path, max_bytes=20_000) as log:
        futures = [log.submit(record(str(n))) for n in range(500)]
        log.flush()
        assert all(future.done() for future in futures)
        assert (futures[-1].result(), log.written, log.lost) == (log.head, 500, 0)
    report = verify_log([path], head=(futures[100].result(), 101))
    assert (report.broken, report.lines) == (0, 500)


def test_threads_may_share_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"

    def use(log: RouteLog, n: int) -> None:
        for k in range(50):
            (log.append if k % 2 else log.submit)(record(f"{n}-{k}"))

    with RouteLog(path, max_bytes=30_000) as log:
        threads = [threading.Thread(target=use, args=(log, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report = verify_log([path], head=(log.head, log.seq))
    assert (report.broken, report.lines, log.written) == (0, 200, 200)


def stall(faulty: FaultyOs) -> tuple[threading.Event, threading.Event]:
    """Writes wait from now on: (set it to let them go on, set when one has begun)."""
    stuck, writing = threading.Event(), threading.Event()

    def stalling(file: int, data: bytes) -> int:
        writing.set()
        stuck.wait(60)
        return os.write(file, data)

    faulty.write = stalling
    return stuck, writing


def test_a_full_queue_loses_and_counts_but_does_not_wait(tmp_path: Path, faulty: FaultyOs) -> None:
    path = tmp_path / "log"
    stuck, writing = stall(faulty)
    with RouteLog(path, queue=2) as log:
        futures = [log.submit(record("0"))]
        assert writing.wait(60)
        futures += [log.submit(record(str(n))) for n in range(1, 5)]
        assert [future.done() for future in futures] == [False, False, True, True, True]
        with pytest.raises(HardrouteError, match="too many records wait"):
            futures[2].result()
        assert log.lost == 3
        stuck.set()
        log.flush()
        faulty.write = os.write
        assert log.submit(record("5")).exception(timeout=60) is None
    assert [(line["clip"], line.get("lost")) for line in lines(path)] == [("0", None), ("1", 3), ("5", None)]


def test_a_cancelled_record_is_counted(tmp_path: Path, faulty: FaultyOs) -> None:
    path = tmp_path / "log"
    stuck, writing = stall(faulty)
    with RouteLog(path) as log:
        log.submit(record("0"))
        assert writing.wait(60)
        assert log.submit(record("1")).cancel()
        stuck.set()
        log.submit(record("2")).result(timeout=60)
        assert log.lost == 1
    assert verify_log([path]).lost == 1


def test_what_was_submitted_is_written_even_if_nobody_closes(tmp_path: Path) -> None:
    code = "import sys; from hardroute import RouteLog; from tests.support.routelogs import record\n"
    code += "log = RouteLog(sys.argv[1])\nfor n in range(300): log.submit(record(str(n)))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "log"], cwd=ROOT, check=True, timeout=60)
    assert verify_log([tmp_path / "log"]).lines == 300


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    log = RouteLog(tmp_path / "log")
    log.append(record())
    log.close()
    log.close()
    uses: list[Callable[[], object]] = [
        lambda: log.append(record()), lambda: log.submit(record()), log.flush
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(HardrouteError, match="is closed"):
            use()
    assert (log.seq, log.lost) == (1, 0)


def test_a_head_is_known_before_the_first_line(tmp_path: Path) -> None:
    with RouteLog(tmp_path / "log") as log:
        assert (log.head, log.seq, log.written) == ("0" * 64, 0, 0)
    head, seq = write(tmp_path / "log", 2)
    with RouteLog(tmp_path / "log") as log:
        assert (log.head, log.seq, log.written) == (head, seq, 0)
        assert log.append(EventRecord.now("error")) == log.head


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_bytes": 0}, "max_bytes must be at least 1"),
        ({"keep": 3}, "keep needs max_bytes"),
        ({"keep": -1, "max_bytes": 10}, "keep must be at least 0, got -1"),
        ({"sync": "often"}, 'sync must be "none", "each" or seconds'),
        ({"sync": 0.0}, 'sync must be "none", "each" or seconds'),
        ({"sync": float("nan")}, 'sync must be "none", "each" or seconds'),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(HardrouteError, match=says):
        RouteLog(tmp_path / "log", **options)
