"""The chain: what was changed, dropped, put in, repeated or moved is found; hostile files cost no traceback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardroute import HardrouteError, RouteLog, RouteRecord
from hardroute.runtime.cli.log_text import describe_report
from hardroute.runtime.routelog import EventRecord
from hardroute.runtime.routelog.chain import GENESIS, MAX_LINE, parse_head
from hardroute.runtime.routelog.verify import Report, verify_log
from tests.support.paths import ROOT
from tests.support.routelogs import family, record, write

DOCS = (ROOT / "docs/routing-log.md").read_text(encoding="utf-8")
(SNIPPET,) = re.findall(r"^```python\n(.*?)^```", DOCS, re.DOTALL | re.MULTILINE)
LINES = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, tuple[str, int]]:
    """The bytes of a log of `LINES` lines, and its head."""
    path = tmp_path_factory.mktemp("original") / "log"
    head = write(path, LINES)
    return path.read_bytes(), head


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test puts its tampered copy."""
    return tmp_path_factory.mktemp("copy") / "log"


def checked(path: Path, data: bytes, head: tuple[str, int | None] | None = None) -> Report:
    path.write_bytes(data)
    return verify_log([path], head=head)


def run_snippet(*paths: Path) -> subprocess.CompletedProcess[str]:
    # -S -I: nothing but the standard library.
    command = [sys.executable, "-I", "-S", "-c", SNIPPET, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    words = [sys.executable, "-m", "hardroute", "log", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=120)


def test_each_line_holds_the_hash_of_the_one_before(original: tuple[bytes, tuple[str, int]]) -> None:
    data, head = original
    lines = data.splitlines(keepends=True)
    prev = "0" * 64
    for seq, line in enumerate(lines, 1):
        assert line.startswith(b'{"seq": %d, "prev": "%s", "schema": 2, ' % (seq, prev.encode()))
        prev = hashlib.sha256(line).hexdigest()
    assert head == (prev, LINES)


def test_a_whole_log_is_whole(original: tuple[bytes, tuple[str, int]], copy: Path) -> None:
    data, head = original
    report = checked(copy, data, head)
    assert (report.broken, report.lines, report.first, report.head) == (0, LINES, 1, (LINES, head[0]))
    assert f"head {head[0]}:{LINES}" in describe_report(report)
    # A head of any earlier line stands as well, and the log may have grown since.
    for n, line in enumerate(data.splitlines(keepends=True), 1):
        assert checked(copy, data, (hashlib.sha256(line).hexdigest(), n)).broken == 0
        assert checked(copy, data, (hashlib.sha256(line).hexdigest(), None)).broken == 0
    assert checked(copy, b"", (GENESIS.hash, 0)).broken == 0
    other = head[0][:-1] + ("0" if head[0][-1] != "0" else "1")
    assert checked(copy, data, (other, LINES)).broken == checked(copy, data, (head[0], LINES - 1)).broken == 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_changed_byte_is_found(original: tuple[bytes, tuple[str, int]], copy: Path, data: st.DataObject) -> None:
    whole, head = original
    last = len(whole) - len(whole.splitlines(keepends=True)[-1])
    where = data.draw(st.integers(0, len(whole) - 1))
    new = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[where]))
    changed = whole[:where] + bytes([new]) + whole[where + 1 :]
    assert checked(copy, changed, head).broken
    # Nothing but a head holds the last line.
    if where < last:
        assert verify_log([copy]).broken


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_dropped_moved_repeated_and_forged_lines_are_found(
    original: tuple[bytes, tuple[str, int]], copy: Path, data: st.DataObject
) -> None:
    whole, head = original
    lines = whole.splitlines(keepends=True)
    one, other = sorted(data.draw(st.tuples(*[st.integers(0, LINES - 1)] * 2).filter(lambda pair: pair[0] != pair[1])))
    what = data.draw(st.sampled_from(["drop", "swap", "repeat", "move", "forge", "insert"]))
    if what == "drop":
        del lines[one:other]
    elif what == "swap":
        lines[one], lines[other] = lines[other], lines[one]
    elif what == "repeat":
        lines.insert(other, lines[one])
    elif what == "move":
        lines.insert(other, lines.pop(one))
    elif what == "forge":  # another answer, with the right number and the right hash of the line before
        lines[one] = lines[one].replace(b'"right"', b'"wrong"')
    else:
        lines.insert(other, data.draw(st.sampled_from([b"\n", b"{}\n", b"[]\n", lines[one].upper(), b"\xff\n"])))
    assert checked(copy, b"".join(lines)).broken
    assert verify_log([copy], head=head).broken


def test_breaks_are_named_by_file_line_and_kind(original: tuple[bytes, tuple[str, int]], copy: Path) -> None:
    lines = original[0].splitlines(keepends=True)

    def said(*changed: bytes) -> list[str]:
        return checked(copy, b"".join(changed)).breaks

    assert said(*lines[:2], *lines[3:]) == [f"{copy} line 3: seq 4 follows 2: what was between is missing"]
    assert said(*lines[:2], lines[1], *lines[2:]) == [f"{copy} line 3: seq 2 follows 2: repeated, moved or put in"]
    (changed,) = said(lines[0], lines[1].replace(b"right", b"wrong"), *lines[2:])
    assert changed == f'{copy} line 3: its "prev" is not the hash of the line before: one of the two was changed'
    (head,) = said(*lines[2:])
    assert head == f"{copy} line 1: the log begins with seq 3; nothing says where 1 and on went"
    assert said(*lines[2:4], b"no JSON\n", lines[5])[:1] == [f"{copy} line 3: is not one JSON object in ASCII"]


def test_a_cut_off_end_is_found_by_a_head_only(original: tuple[bytes, tuple[str, int]], copy: Path) -> None:
    data, head = original
    short = b"".join(data.splitlines(keepends=True)[:-2])
    assert checked(copy, short).broken == 0
    (said,) = checked(copy, short, head).breaks
    assert "the log ends with seq 4, and the head is of seq 6: its end was cut off" in said
    (said,) = checked(copy, short, (head[0], None)).breaks
    assert "no line has the hash of the head" in said
    # A chain that was written anew has the same numbers, and another hash.
    copy.unlink()
    write(copy, LINES + 3)
    copy.write_bytes(copy.read_bytes().replace(b"right", b"wrong"))
    assert "no line has the hash" in verify_log([copy], head=head).breaks[-1]


def test_older_lines_may_lie_elsewhere(original: tuple[bytes, tuple[str, int]], copy: Path) -> None:
    data, head = original
    lines = data.splitlines(keepends=True)
    copy.write_bytes(b"".join(lines[3:]))
    report = verify_log([copy], start=4, head=head)
    assert report.broken == 0
    assert "chain starts at seq 4: nobody gave the lines before it" in describe_report(report)
    # The line before the first one left can still be checked; older ones cannot, and that is not called whole.
    assert verify_log([copy], start=4, head=(hashlib.sha256(lines[2]).hexdigest(), 3)).broken == 0
    with pytest.raises(HardrouteError, match="give a later head"):
        verify_log([copy], start=4, head=(hashlib.sha256(lines[1]).hexdigest(), 2))


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60_000,
        b'{"seq": 2, "prev": "' + b"0" * 64 + b'", "a": ' + b"[" * 60_000,
        b"9" * 60_000,
        b'{"seq": true}',
        b'{"seq": 1e3, "prev": 7}',
        b'{"seq": 99999999999999999999999999, "prev": "' + b"0" * 64 + b'", "a": 1}',
        b'{"seq": 2, "seq": 2}',
        b'{"a": NaN}',
        b'{"prev": "\\ud800"}',
        "{\u2028}".encode(),
        b"\x00" * 1000,
        b"x" * (3 * MAX_LINE),
        b"x" * MAX_LINE,
        b"",
        b"\r",
    ],
    ids=lambda line: repr(line[:30]),
)
def test_hostile_lines_are_breaks_and_no_tracebacks(
    original: tuple[bytes, tuple[str, int]], copy: Path, line: bytes
) -> None:
    lines = original[0].splitlines(keepends=True)
    report = checked(copy, b"".join([lines[0], line + b"\n", *lines[1:]]))
    assert report.breaks[0].startswith(f"{copy} line 2: ")
    assert report.lines == LINES + 1
    assert checked(copy, original[0] + line + b"\n").broken  # at the end
    assert checked(copy, line + b"\n").broken  # and alone


def test_a_name_that_stands_twice_is_a_break(copy: Path) -> None:
    # Of two labels one reader takes the first, another the last.
    line = b'{"seq": 1, "prev": "%s", "label": "left"' % (b"0" * 64)
    assert checked(copy, line + b"}\n").broken == 0
    assert checked(copy, line + b', "label": "right"}\n').broken == 1


def test_a_line_written_in_another_way_is_a_break(copy: Path) -> None:
    # A reader without JSON, as the documented one, would not see its number.
    prev = b"0" * 64
    assert checked(copy, b'{"seq":1,"prev":"%s","a":1}\n' % prev).broken == 1
    assert checked(copy, b'{"a": 1, "seq": 1, "prev": "%s"}\n' % prev).broken == 1
    assert checked(copy, b'{"seq": 1, "prev": "%s", "a": 1}\n' % prev).broken == 0


def test_an_end_that_no_crash_leaves_is_a_break(original: tuple[bytes, tuple[str, int]], copy: Path) -> None:
    assert checked(copy, original[0] + b"a note").broken == 1
    assert checked(copy, original[0] + b'{"seq"').broken == 0


def test_marks_full_of_nonsense_count_for_nothing(copy: Path) -> None:
    body = json.dumps({"lost": -3, "torn": [1], "oldest": 10**30, "unsynced": "many"})[1:]
    report = checked(copy, b'{"seq": 1, "prev": "%s", %s\n' % (b"0" * 64, body.encode()))
    assert (report.broken, report.lost, report.torn, report.oldest, report.unsynced) == (0, 0, 0, 1, 0)
    # A mark cannot excuse that lines before it are gone: it can only name a line that came before.
    assert checked(copy, b'{"seq": 9, "prev": "%s", "oldest": 99, %s\n' % (b"1" * 64, b'"a": 1}')).broken == 0
    assert checked(copy, b'{"seq": 9, "prev": "%s", "oldest": 8, %s\n' % (b"1" * 64, b'"a": 1}')).broken == 1


def test_many_breaks_are_counted_and_few_are_kept(copy: Path) -> None:
    report = checked(copy, b"no\n" * 5000)
    assert (report.broken, len(report.breaks), report.lines) == (5000, 20, 5000)
    assert "and 4980 more" in describe_report(report)


def test_a_line_without_end_needs_no_memory(copy: Path) -> None:
    with copy.open("wb") as file:
        file.truncate(1 << 27)  # sparse: 128 MiB of zeros without a line break
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert verify_log([copy]).broken == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    copy.unlink()


def test_what_is_no_file_is_one_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path / "absent", "No such file"),
        (tmp_path / "no" / "log", "No such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
    ):
        with pytest.raises(HardrouteError, match=says):
            verify_log([path])


@pytest.mark.parametrize("text", ["", "abc", "g" * 64, "0" * 63, "0" * 64 + ":x", "0" * 64 + ":" + "9" * 40])
def test_a_head_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(HardrouteError, match="is not HASH or HASH:SEQ"):
        parse_head(text)


def test_heads_are_read_as_printed() -> None:
    assert parse_head(f" {'AB' * 32}:12\n") == ("ab" * 32, 12)
    assert parse_head("ab" * 32) == ("ab" * 32, None)


def test_the_documented_check_agrees(tmp_path: Path) -> None:
    path = tmp_path / "log"
    head, seq = write(path, 40, max_bytes=5000)
    files = family(path)
    assert len(files) > 3
    done = run_snippet(*files)
    assert (done.returncode, done.stdout) == (0, f"head {head}:{seq}\n"), done.stderr
    lines = files[1].read_bytes().splitlines(keepends=True)
    files[1].write_bytes(b"".join([*lines[:3], lines[3].replace(b"right", b"wrong"), *lines[4:]]))
    done = run_snippet(*files)
    assert (done.returncode, done.stderr) == (1, f"broken: {files[1]} line 5\n")
    (said,) = verify_log([path]).breaks
    assert said.startswith(f"{files[1]} line 5: ")
    done = run_snippet(files[0], *files[2:])
    assert done.stderr == f"broken: {files[2]} line 1\n"


def test_every_field_is_documented() -> None:
    documented = set(
        re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in DOCS.splitlines() if row[:1] == "|"))
    )
    own = {"seq", "prev", "lost", "torn", "oldest", "unsynced", "displaced"}
    assert documented == own | {field.name for kind in (RouteRecord, EventRecord) for field in fields(kind)}
    assert f"{MAX_LINE:,} bytes" in DOCS


def test_the_command_verifies(tmp_path: Path) -> None:
    path = tmp_path / "log"
    head, seq = write(path, 5)
    done = command("verify", path, "--head", f"{head}:{seq}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ok: 5 lines in 1 file, seq 1 to 5\nhead {head}:{seq}\n"
    path.write_bytes(path.read_bytes().replace(b'"clip": "2"', b'"clip": "7"'))
    done = command("verify", path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"broken: {path} line 4: ") and "head" not in done.stdout
    done = command("verify", tmp_path / "absent")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: route log {tmp_path}/absent: cannot be read: No such file or directory\n"


def test_reading_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with RouteLog(path, max_bytes=3000) as log:
        for n in range(30):
            log.append(record(str(n)))
            report = verify_log([path])
            assert (report.broken, report.lines, report.head) == (0, n + 1, (log.seq, log.head))
