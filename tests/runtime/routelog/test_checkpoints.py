"""Signed checkpoints: any one that was kept finds a log that was rewritten or cut; other tools read them."""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hardroute import HardrouteError, RouteLog
from hardroute.runtime.cli.log import app
from hardroute.runtime.cli.log_text import describe_report
from hardroute.runtime.routelog import chain_file, checkpoints, signed_note
from hardroute.runtime.routelog.checkpoints import MAX_KEPT
from hardroute.runtime.routelog.summary import summarise
from hardroute.runtime.routelog.verify import verify_log
from tests.support.paths import DOCS
from tests.support.routelogs import make_key, record, write

LINES, EVERY = 25, 10
SIGNED = (10, 20, 25)  # the last one when the log is closed


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    """A folder with a signed log; tests change copies of what is in it."""
    folder = tmp_path_factory.mktemp("signed")
    write(folder / "log", LINES, key=keys[0], checkpoint_every=EVERY, origin="example.org/door")
    return folder


@pytest.fixture
def copy(signed: Path, tmp_path: Path) -> Path:
    for name in ("log", "log.checkpoints"):
        (tmp_path / name).write_bytes((signed / name).read_bytes())
    return tmp_path / "log"


def notes(log: Path) -> list[str]:
    lines = checkpoints.checkpoints_name(log).read_text().splitlines(keepends=True)
    return ["".join(lines[n : n + 5]) for n in range(0, len(lines), 5)]


def test_a_checkpoint_is_what_the_specification_says(signed: Path, keys: tuple[Path, Path]) -> None:
    raw = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", keys[1], "-outform", "DER"], capture_output=True, check=True, timeout=60
    ).stdout[-32:]
    lines = (signed / "log").read_bytes().splitlines(keepends=True)
    assert len(notes(signed / "log")) == len(SIGNED)
    for note, size in zip(notes(signed / "log"), SIGNED, strict=True):
        root = base64.b64encode(hashlib.sha256(lines[size - 1]).digest()).decode()
        text = f"example.org/door\n{size}\n{root}\n"
        name, encoded = note.removeprefix(f"{text}\n\u2014 ").split(" ")
        data = base64.b64decode(encoded)
        assert name == "example.org/door" and note.endswith("\n")
        assert data[:4] == hashlib.sha256(b"example.org/door\n\x01" + raw).digest()[:4]
        Ed25519PublicKey.from_public_bytes(raw).verify(data[4:], text.encode())


def test_key_ids_are_those_of_other_programs() -> None:
    # A verifier key that was published elsewhere: name, id and, after a byte for ed25519, the key.
    name, number, encoded = "PeterNeumann", "c74f20a3", "ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
    assert signed_note._key_id(name, key).hex() == number


def test_a_whole_log_agrees_with_all_of_them(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    kept = []
    for number, note in enumerate(notes(signed / "log")):
        kept.append(tmp_path / str(number))
        kept[-1].write_text(note)
    (tmp_path / "all").write_text("".join(notes(signed / "log")))
    report = verify_log([signed / "log"], keys=[keys[1]], checkpoints=[*kept, tmp_path / "all"])
    assert (report.broken, report.signed, report.signed_seq) == (0, 9, LINES)
    assert "signed: 9 checkpoints agree, the last of seq 25\n" in describe_report(report)
    # Signatures of others under the same text do no harm.
    kept[0].write_text(notes(signed / "log")[0] + "\u2014 witness.example AAAAAAAAAAAA\n")
    assert verify_log([signed / "log"], keys=[keys[1]], checkpoints=[kept[0]]).broken == 0


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_one_kept_checkpoint_finds_a_log_written_anew(
    signed: Path, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("anew")
    kept = data.draw(st.integers(0, len(SIGNED) - 1))
    (folder / "kept").write_text(notes(signed / "log")[kept])
    changed = data.draw(st.integers(0, LINES - 1))
    lines, prev = (signed / "log").read_bytes().splitlines(keepends=True), "0" * 64
    for n, line in enumerate(lines):
        # Whoever has the file makes a chain that is whole.
        line = re.sub(rb'"prev": "\w+"', f'"prev": "{prev}"'.encode(), line)
        lines[n] = line.replace(b'"right"', b'"wrong"') if n == changed else line
        prev = hashlib.sha256(lines[n]).hexdigest()
    (folder / "log").write_bytes(b"".join(lines))
    assert verify_log([folder / "log"]).broken == 0
    report = verify_log([folder / "log"], keys=[keys[1]], checkpoints=[folder / "kept"])
    assert report.broken == (changed < SIGNED[kept]), report.breaks
    if report.broken:
        assert f"not what checkpoint {folder}/kept says of seq {SIGNED[kept]}" in report.breaks[0]
    # And one cut off somewhere.
    end = data.draw(st.integers(0, LINES))
    (folder / "log").write_bytes(b"".join((signed / "log").read_bytes().splitlines(keepends=True)[:end]))
    report = verify_log([folder / "log"], keys=[keys[1]], checkpoints=[folder / "kept"])
    assert report.broken == (end < SIGNED[kept]), report.breaks


def test_checkpoints_beside_the_log_are_checked_too(copy: Path, keys: tuple[Path, Path]) -> None:
    own = checkpoints.checkpoints_name(copy)
    whole = notes(copy)

    def said(*changed: str) -> list[str]:
        own.write_text("".join(changed))
        return verify_log([copy], keys=[keys[1]]).breaks

    assert said(*whole) == []
    assert said(*whole[:2], whole[2][:-9]) == [], "a crash leaves half a one"
    assert said(whole[0].replace("\n10\n", "\n11\n"), *whole[1:]) == [
        "log.checkpoints number 1: is not signed by the key"
    ]
    assert said(whole[1], whole[0]) == ["log.checkpoints number 2: is of seq 10, and follows one of 20"]
    assert said(whole[0], "nonsense\n" * 5, whole[1]) == ["log.checkpoints number 2: is no checkpoint"]
    own.write_text("".join(whole))
    copy.write_bytes(b"".join(copy.read_bytes().splitlines(keepends=True)[:15]))
    assert [one.split(": ", 1)[1] for one in verify_log([copy], keys=[keys[1]]).breaks] == [
        f"the log ends with seq 15, and log.checkpoints number {n} is of seq {seq}: its end was cut off"
        for n, seq in ((2, 20), (3, 25))
    ]
    # Without a key nobody can say anything about them.
    assert verify_log([copy]).broken == 0


def test_lines_that_are_gone_cannot_be_compared(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = tmp_path / "log"
    write(path, 60, key=keys[0], checkpoint_every=5, max_bytes=3000, keep=1)
    report = verify_log([path], keys=[keys[1]])
    assert report.broken == 0 and report.older > 0 and report.signed + report.older == 12
    assert "of lines before the first one, not compared" in describe_report(report)
    # One that was given was given to be compared: what the log says of its own beginning does not excuse that.
    (tmp_path / "kept").write_text(notes(path)[0])
    with pytest.raises(HardrouteError, match=r"is of seq 5, and the log begins with .* give a later checkpoint"):
        verify_log([path], keys=[keys[1]], checkpoints=[tmp_path / "kept"])


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "is no text, blank line and signatures"),
        (b"\n\n\n", "is no text, blank line and signatures"),
        (b"a\n1\nAAAA\n\n\xe2\x80\x94 a AAAAAAAA\n", "is not signed by the key"),
        (b"a\n1\n\n\n\xe2\x80\x94 a\n", "signature line"),
        (b"a\n1\nAAAA\n\n\xe2\x80\x94 a b AAAA\n", "not base64"),
        (b"a\r\n1\nAAAA\n\n\xe2\x80\x94 a AAAAAAAA\n", "control characters"),
        (b"\xff" * 100, "is no text"),
        (b"a\n\n" + "\u2014 a AAAAAAAA\n".encode() * 99, "more than 16 signatures"),
        (b"x" * (MAX_KEPT + 1), "is longer than"),
    ],
)
def test_what_is_no_checkpoint_is_one_error(
    copy: Path, keys: tuple[Path, Path], tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "kept").write_bytes(content)
    with pytest.raises(HardrouteError, match=says):
        verify_log([copy], keys=[keys[1]], checkpoints=[tmp_path / "kept"])
    checkpoints.checkpoints_name(copy).write_bytes(content)
    assert verify_log([copy], keys=[keys[1]]).broken == (content != b"" and content != b"\xff" * 100)


def test_another_key_is_refused(copy: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_key(tmp_path, "other")
    (tmp_path / "kept").write_text(notes(copy)[1])
    with pytest.raises(HardrouteError, match="is not signed by the key"):
        verify_log([copy], keys=[other[1]], checkpoints=[tmp_path / "kept"])
    assert verify_log([copy], keys=[other[1]]).broken == len(SIGNED)
    # After a change of keys both are given.
    with RouteLog(copy, key=other[0]) as log:
        log.append(record())
    assert verify_log([copy], keys=[keys[1], other[1]], checkpoints=[tmp_path / "kept"]).broken == 0
    with pytest.raises(HardrouteError, match="holds no ed25519 public key"):
        verify_log([copy], keys=[keys[0]])
    with pytest.raises(HardrouteError, match="holds no ed25519 private key"):
        RouteLog(copy, key=keys[1])
    with pytest.raises(HardrouteError, match="cannot be read"):
        RouteLog(copy, key=tmp_path / "absent")
    with pytest.raises(HardrouteError, match="without the public key"):
        verify_log([copy], checkpoints=[tmp_path / "kept"])
    with pytest.raises(HardrouteError, match="printable characters without blanks"):
        RouteLog(copy, key=keys[0], origin="two words")


def test_the_pace_goes_on_when_a_log_is_opened_again(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    path = tmp_path / "log"
    for _ in range(3):
        write(path, 4, key=keys[0], checkpoint_every=3)
    assert [note.split("\n")[1] for note in notes(path)] == ["3", "4", "7", "8", "11", "12"]
    # Nothing new, nothing to sign.
    with RouteLog(path, key=keys[0]) as log:
        assert (log.checkpoint, log.signed, log.signed_seq) == (notes(path)[-1], 0, 12)
    assert len(notes(path)) == 6
    assert notes(path)[0].startswith("hardroute/log\n")


@pytest.mark.parametrize("what", ["deleted", "cut", "written anew"])
def test_a_writer_does_not_go_on_before_its_last_checkpoint(copy: Path, keys: tuple[Path, Path], what: str) -> None:
    if what == "cut":
        copy.write_bytes(b"".join(copy.read_bytes().splitlines(keepends=True)[:-1]))
    else:
        copy.unlink()
    if what == "written anew":
        write(copy, LINES + 1)
        copy.write_bytes(b"".join(copy.read_bytes().splitlines(keepends=True)[:LINES]).replace(b"right", b"wrong"))
    for _ in range(2):  # and the lock is given back
        with pytest.raises(HardrouteError, match="it was cut off, deleted or written anew; move the log and its"):
            RouteLog(copy, key=keys[0])
    copy.unlink(missing_ok=True)
    checkpoints.checkpoints_name(copy).unlink()
    write(copy, 1, key=keys[0])


def test_half_a_checkpoint_is_removed(copy: Path, keys: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    own = checkpoints.checkpoints_name(copy)
    whole = own.read_text()
    for cut in range(1, len(notes(copy)[-1].encode())):
        own.write_bytes(whole.encode()[:-cut])
        with RouteLog(copy, key=keys[0], origin="example.org/door") as log:
            assert log.signed_seq == 20
        assert own.read_text() == whole, "signed again when it was closed"
    assert "half a checkpoint" in caplog.text


def test_a_line_is_answered_for_even_if_its_checkpoint_cannot_be_written(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RouteLog(path, key=keys[0], checkpoint_every=2) as log:
        with monkeypatch.context() as full:
            full.setattr(checkpoints, "os", SimpleNamespace(**{**vars(os), "fsync": fail}))
            for _ in range(3):
                log.append(record())
            assert "cannot be written: No space left on device" in caplog.text
            assert log.signed == 0
        log.append(record())
        assert (log.signed, log.signed_seq, log.lost) == (1, 4, 0)


def test_nothing_is_signed_that_a_power_cut_could_take(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "log"
    with RouteLog(path, key=keys[0], checkpoint_every=1) as log:
        with monkeypatch.context() as failing:
            failing.setattr(chain_file, "os", SimpleNamespace(**{**vars(os), "fsync": fail}))
            log.append(record())
            assert log.checkpoint is None and not checkpoints.checkpoints_name(path).exists()
        log.append(record())
        assert log.signed_seq == 2


def test_a_clock_that_goes_back_is_remarked_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log"
    with RouteLog(path) as log:
        for time in ("10:00:00", "10:00:05", "10:00:04.5", "09:59:58", "09:59:59", "07:00:00"):
            log.append(record(time=f"2027-01-01T{time}+00:00"))
    report = verify_log([path])
    assert (report.broken, report.clock_back) == (0, 2)
    assert report.remarks[0] == f"{path} line 4: the clock went back by 6.5 s"
    assert "clock: it went back before 2 lines" in describe_report(report)
    assert summarise([path]).clock_back == 2
    # The last line is of a time to come, and so the writer's clock has gone back meanwhile.
    path.write_bytes(path.read_bytes().replace(b"2027-", b"9000-"))
    with caplog.at_level(logging.WARNING), RouteLog(path) as log:
        assert "clock" not in caplog.text
        log.append(record())
        log.append(record())
    assert caplog.text.count("the clock went back from 9000-01-01") == 1


def emptied(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("displace", [Path.unlink, emptied, lambda path: path.rename(path.with_name("elsewhere"))])
def test_a_displaced_log_is_noticed(
    tmp_path: Path, displace: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    with RouteLog(path, max_bytes=100_000) as log:
        log.append(record("0"))
        assert (log.place, log.displaced) == ("same", 0)
        displace(path)
        assert log.place == "missing"
        log.append(record("1"))
        assert (log.place, log.displaced) == ("same", 1)
        assert "another program has moved, deleted or emptied it; it goes on with seq 2" in caplog.text
        log.append(record("2"))
    report = verify_log([path], start=2)
    assert (report.broken, report.displaced, report.lines) == (0, 1, 2)
    assert report.remarks == [f"{path} line 1: before it another program moved, deleted or emptied the file"]


def test_no_line_goes_where_others_write(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with RouteLog(path) as log:
        log.append(record("0"))
        whole = path.read_bytes()
        for changed in (whole + b"a note", whole[:-1]):
            path.write_bytes(changed)
            assert log.place == "changed"
            with pytest.raises(HardrouteError, match="has written into it; move it away"):
                log.append(record("1"))
            assert path.read_bytes() == changed
        path.rename(tmp_path / "elsewhere")
        write(path, 1)
        assert log.place == "replaced"
        path.unlink()
        log.append(record("2"))


def test_rotation_is_no_displacement(tmp_path: Path) -> None:
    with RouteLog(tmp_path / "log", max_bytes=1500) as log:
        for n in range(20):
            log.append(record(str(n)))
            assert (log.place, log.displaced) == ("same", 0)


def test_the_command_takes_key_and_checkpoint(copy: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "kept").write_text(notes(copy)[0])
    words = ["verify", str(copy), "--key", str(keys[1]), "--checkpoint", str(tmp_path / "kept")]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0 and "signed: 4 checkpoints agree, the last of seq 25\n" in shown.output
    copy.write_bytes(b"".join(copy.read_bytes().splitlines(keepends=True)[:5]))
    assert CliRunner().invoke(app, words).exit_code == 1


def test_others_can_check_it_with_the_documented_commands(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    page = (DOCS / "routing-log.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "log.pub").write_bytes(keys[1].read_bytes())
    (tmp_path / "routes.jsonl").write_bytes((signed / "log").read_bytes())

    def run(note: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "checkpoint").write_text(note)
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        return subprocess.run(
            ["/bin/sh", "-e", "-c", script],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    for note in notes(signed / "log"):
        done = run(note)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "the log is what was signed"), done.stderr
    assert run(notes(signed / "log")[0].replace("\n10\n", "\n20\n")).returncode != 0
    (tmp_path / "routes.jsonl").write_bytes((signed / "log").read_bytes().replace(b'"clip": "9"', b'"clip": "8"'))
    assert run(notes(signed / "log")[0]).returncode != 0
