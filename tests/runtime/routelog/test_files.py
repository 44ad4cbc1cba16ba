"""The log's files: rotation, what `keep` removes, one writer, and what a crash may leave at any point."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hardroute import HardrouteError, RouteLog
from hardroute.runtime.cli.log_text import describe_report
from hardroute.runtime.routelog.verify import verify_log
from tests.measure import kill_log
from tests.support.paths import ROOT
from tests.support.routelogs import family, record, write


def clips(path: Path) -> list[str]:
    return [json.loads(line)["clip"] for file in family(path) for line in file.read_text().splitlines()]


def test_the_chain_goes_on_over_rotated_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    head = write(path, 30, max_bytes=2000)
    files = family(path)
    assert len(files) > 5 and set(tmp_path.iterdir()) == set(files)
    assert max(file.stat().st_size for file in files) <= 2000
    assert clips(path) == [str(n) for n in range(30)]
    for file in files[:-1]:
        assert int(file.name[-12:]) == json.loads(file.read_text().splitlines()[0])["seq"]
    report = verify_log([path], head=head)
    assert (report.broken, report.files, report.lines) == (0, len(files), 30)
    # A list is taken as such, in any order: a shell puts FILE before FILE.000000000001.
    assert verify_log([path, *files[:-1]], head=head).broken == 0
    for gone in files[:-1]:
        assert verify_log([file for file in files if file != gone]).broken == 1
    # Another process goes on where this one stopped.
    assert write(path, 1, max_bytes=2000)[1] == 31
    assert verify_log([path], head=head).broken == 0


def test_a_line_longer_than_the_limit_has_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 4, max_bytes=1)
    assert len(family(path)) == 4
    assert verify_log([path]).broken == 0


@pytest.mark.parametrize("keep", [0, 1, 3])
def test_the_log_says_itself_what_keep_removed(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "log"
    head = write(path, 30, max_bytes=2000, keep=keep)
    files = family(path)
    assert len(files) == keep + 1 and set(tmp_path.iterdir()) == set(files)
    first = json.loads(files[0].read_text().splitlines()[0])["seq"]
    assert first > 1
    report = verify_log([path], head=head)
    assert (report.broken, report.first, report.oldest) == (0, first, first)
    assert f"chain starts at seq {first}: `keep` removed the lines before it" in describe_report(report)
    # Whoever removes one more cannot hide behind it.
    if keep:
        files[0].unlink()
        (said,) = verify_log([path]).breaks
        assert f"nothing says where {first} and on went" in said


def test_a_rotated_file_under_another_name_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 12, max_bytes=2000)
    second = family(path)[1]
    second.rename(path.with_name("log.000000000002"))
    (said,) = verify_log([path]).breaks
    assert "the file's name says that it begins with seq 2" in said


def test_a_file_in_the_way_of_rotation_is_not_written_over(tmp_path: Path) -> None:
    path, other = tmp_path / "log", tmp_path / "log.000000000001"
    write(path, 3)
    with RouteLog(path, max_bytes=1) as log:
        other.write_text("something else\n")
        with pytest.raises(HardrouteError, match="will not write over"):
            log.append(record())
        assert other.read_text() == "something else\n"
        other.unlink()
        log.append(record())
    assert [verify_log([path]).lost, clips(path)] == [1, ["0", "1", "2", "a.mp4"]]


def test_rotation_goes_on_wherever_a_crash_stopped_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    head, seq = write(path, 3)
    # The next file is there, the full one has both names.
    path.with_name("log.next").write_bytes(b"")
    os.link(path, path.with_name("log.000000000001"))
    assert (verify_log([path]).broken, verify_log([path]).lines) == (0, 3)
    RouteLog(path).close()
    assert family(path) == [path]  # one name again: a copy of the folder would have every line twice
    os.link(path, path.with_name("log.000000000001"))
    write(path, 2, max_bytes=1)
    assert verify_log([path], head=(head, seq)).broken == 0
    # The new file is in place and still empty.
    path.rename(path.with_name("log.000000000005"))
    path.write_bytes(b"")
    assert verify_log([path]).lines == 5
    # Even the new file is gone, which no crash of ours leaves behind.
    path.unlink()
    assert verify_log([path]).lines == 5 and "the newest file, log, is gone" in verify_log([path]).breaks[0]
    assert write(path, 1)[1] == 6
    assert verify_log([path], head=(head, seq)).broken == 0


def test_a_link_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    link = tmp_path / "log"
    link.symlink_to(folder / "log")
    (folder / "log").touch()
    head = write(link, 10, max_bytes=2000)
    assert link.is_symlink() and set(tmp_path.iterdir()) == {folder, link}
    assert verify_log([link], head=head).lines == 10


def test_a_torn_end_is_set_aside_and_told_of(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 2)
    whole = path.read_bytes()
    first = whole.splitlines(keepends=True)[0]
    for end in [*range(len(first) + 1, len(whole), 11), len(whole) - 1]:
        path.write_bytes(whole[:end])
        report = verify_log([path])
        assert (report.broken, report.lines, report.tail) == (0, 1, end - len(first))
        write(path, 1)
        assert (tmp_path / "log.torn-000000000002").read_bytes() == whole[len(first) : end]
        mark = json.loads(path.read_bytes().splitlines()[1])["torn"]
        assert mark == {"bytes": end - len(first), "sha256": hashlib.sha256(whole[len(first) : end]).hexdigest()}
        report = verify_log([path])
        assert (report.broken, report.torn, report.lines, report.tail) == (0, 1, 2, 0)
        (tmp_path / "log.torn-000000000002").write_bytes(b"other bytes")
        assert "is not what was cut off before this line" in verify_log([path]).breaks[0]
        (tmp_path / "log.torn-000000000002").unlink()


def test_a_log_that_is_nothing_but_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for torn in (b"{", b'{"seq": 1, "pr', b"\0" * 4096):
        path.write_bytes(torn)
        write(path, 1)
        assert (verify_log([path]).broken, verify_log([path]).torn) == (0, 1)
        (tmp_path / "log.torn-000000000001").unlink()
        path.unlink()


def test_a_crash_between_mending_and_the_next_line_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, 1)
    with path.open("ab") as file:
        file.write(b'{"seq": 2')
    with RouteLog(path):
        pass  # mended, and nothing written
    with path.open("ab") as file:
        file.write(b'{"se')
    write(path, 2)
    first, told, rest = (json.loads(line) for line in path.read_text().splitlines())
    assert "torn" not in first and "torn" not in rest
    assert told["torn"]["bytes"] == len(b'{"seq": 2{"se')


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"my shopping list", "does not end as a routing log does"),
        (b"my shopping list\n", "its last line is not one JSON object"),
        (b'{"schema": 1, "time": "2026"}\n', 'its last line has no "seq"'),
        (b'{"schema": 1, "ti', "does not end as a routing log does"),
        (b"x" * 200_000, "does not end as a routing log does"),
        (b"x" * 200_000 + b"\n", "does not end as a routing log does"),
        (b"{" + b"\0" * 200_000, "does not end as a routing log does"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_another_file_is_not_touched(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(HardrouteError, match=says):
        RouteLog(path)
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/full")):
        with pytest.raises(HardrouteError, match="is not a regular file"):
            RouteLog(path)


def test_a_second_writer_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    second = "import sys; from hardroute import RouteLog; from tests.support.routelogs import record\n"
    second += "try: RouteLog(sys.argv[1]).append(record())\nexcept Exception as error: print(error)"
    with RouteLog(path, max_bytes=1) as log:
        for _ in range(3):  # the lock goes along when the file is rotated
            log.append(record())
            with pytest.raises(HardrouteError, match="another writer has it open"):
                RouteLog(path)
        done = subprocess.run([sys.executable, "-c", second, path], capture_output=True, text=True, check=False)
        assert "another writer has it open" in done.stdout
    assert verify_log([path]).lines == 3
    write(path, 1)  # closed: the next one may
    assert verify_log([path]).broken == 0


def test_two_writers_of_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "log"
    one, other = RouteLog(path), RouteLog(path)
    one.append(record())
    with pytest.raises(HardrouteError, match="another writer has it open"):
        other.append(record())
    one.close()
    other.close()
    assert (verify_log([path]).broken, verify_log([path]).lines, verify_log([path]).lost) == (0, 2, 1)


def _use(log: RouteLog, answers: multiprocessing.Queue[str]) -> None:
    for use in (lambda: log.append(record()), lambda: log.submit(record()), log.flush):
        try:
            use()
        except HardrouteError as error:
            answers.put(str(error))
    log.close()


def test_a_forked_child_may_not_write_and_keeps_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with RouteLog(path) as log:
        log.submit(record()).result()
        child = context.Process(target=_use, args=(log, answers))
        child.start()
        said = [answers.get(timeout=60) for _ in range(3)]
        child.join()
        assert all(f"was opened by process {os.getpid()}" in one for one in said) and child.exitcode == 0
        log.append(record())  # the parent's lock and file are untouched
        with pytest.raises(HardrouteError, match="another writer"):
            RouteLog(path)
        go = context.Event()
        idle = context.Process(target=go.wait)
        idle.start()
    try:
        write(path, 1)  # though a child that was forked meanwhile lives on
    finally:
        go.set()
        idle.join()
    assert verify_log([path]).lines == 3


def test_a_child_that_outlives_its_parent_keeps_no_lock(tmp_path: Path) -> None:
    code = """
import os, sys
from hardroute import RouteLog
from tests.support.routelogs import record
log = RouteLog(sys.argv[1])
log.append(record())
if os.fork():
    os._exit(0)  # as if killed: nothing is closed
print("child", flush=True)
sys.stdin.read()
"""
    path = tmp_path / "log"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"child\n"
        assert parent.wait(60) == 0
        write(path, 1)
    assert verify_log([path]).lines == 2


def test_closing_gives_the_lock_back_whoever_else_has_the_file_open(tmp_path: Path) -> None:
    # A process that is being started has all files of its parent until it becomes the other program.
    log = RouteLog(tmp_path / "log")
    log.append(record())
    assert log._disk is not None
    copied = os.dup(log._disk._file.fileno())
    log.close()
    write(tmp_path / "log", 1)
    os.close(copied)


def test_a_log_that_somebody_moves_or_deletes_goes_on(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    with RouteLog(path) as log:
        log.append(record("0"))
        path.rename(moved)
        log.append(record("1"))
        assert verify_log([moved, path]).lines == 2 and verify_log([moved, path]).broken == 0
        path.unlink()
        log.append(record("2"))
        assert "the log begins with seq 3" in verify_log([path]).breaks[0]
        path.unlink()
        path.write_text("something else\n")
        with pytest.raises(HardrouteError, match="last line is not one JSON object"):
            log.append(record("3"))
        path.unlink()
        write(path, 1)
        with pytest.raises(HardrouteError, match="another file lies in its place"):
            log.append(record("4"))
        path.unlink()
        log.append(record("5"))
        assert json.loads(path.read_text())["lost"] == 2


def test_acknowledged_lines_survive_sigkill(tmp_path: Path) -> None:
    tally = kill_log.Tally()
    kill_log.rounds(tmp_path / "log", np.random.default_rng(5), tally, 4, longest=0.1)
    assert tally.rounds == 4 and tally.acknowledged > 0
