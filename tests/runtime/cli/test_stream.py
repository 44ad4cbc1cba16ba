"""`python -m runtime stream` as its users see it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import TinyBundle, make_bundle
from tests.support.paths import ROOT
from tests.support.videos import grey_frames, write


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "hardroute", "stream", *map(str, arguments)]
    # A shell's background job ignores Ctrl-C, and what it starts inherits that; these processes shall not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
    finally:
        signal.signal(signal.SIGINT, before)


def run(*arguments: str | Path) -> tuple[int, list[str], list[str]]:
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out.splitlines(), err.splitlines()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("video") / "a.avi", grey_frames(40), fps=10)


def test_a_line_for_each_window_and_the_counts_at_the_end(tiny: TinyBundle, video: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code, out, err = run(tiny.root, video, "--seconds", "2", "--stride", "1", "--json", "--log", log)
    assert code == 0
    assert f"{video}: 4 windows, 4 answered, 0 failed, 0 dropped" in err
    printed, logged = [json.loads(line) for line in out], [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["window"] for line in printed] == [{"index": k, "start": float(k), "end": k + 2.0} for k in range(4)]
    # What is printed is what is logged, but for the chain: the line's own hash, not that of the line before.
    heads = [hashlib.sha256(line).hexdigest() for line in log.read_bytes().splitlines(keepends=True)]
    assert [line.pop("head") for line in printed] == heads
    assert printed == [{key: line[key] for key in line if key != "prev"} for line in logged]


def test_bad_sources_cost_the_exit_code_and_not_the_others(tiny: TinyBundle, video: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    code, out, err = run(tiny.root, tmp_path / "bad.mp4", video, "--seconds", "1")
    assert code == 2
    assert len(out) == 4 and all(str(video)[-37:] in line.split()[0] for line in out)
    assert [line for line in err if line.startswith("error: ")] == [
        f"error: {tmp_path}/bad.mp4: text, not a video; give the path of a video file"
    ]


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["absent.mp4"], "absent.mp4: no such file or folder"),
        (["VIDEO", "--policy", "hope"], "--policy must be 'block' or 'drop-oldest', got 'hope'"),
        (["VIDEO", "VIDEO"], "already being served"),
        (["VIDEO", "--digest", "0" * 64], "digest"),
        (["VIDEO", "--tolerance", "1e-12"], "more than the tolerance 1e-12"),
        (["VIDEO", "--log-keep", "2"], "--log"),
        (["VIDEO", "--log", "/dev/null", "--log-keep", "2"], "--log-keep needs --log-max-bytes"),
    ],
)
def test_mistakes_are_one_line(tiny: TinyBundle, video: Path, arguments: list[str], says: str) -> None:
    code, out, err = run(tiny.root, *[str(video) if word == "VIDEO" else word for word in arguments])
    assert (code, out) == (2, [])
    assert [says in line for line in err if line.startswith("error: ")] == [True]
    assert not any("Traceback" in line for line in err)


def test_auto_says_what_it_chose(tiny: TinyBundle, video: Path) -> None:
    code, out, err = run(tiny.root, video, "--seconds", "2", "--backend", "auto", "--tolerance", "0.01")
    assert code == 0 and len(out) == 2
    assert err[0].startswith("backend ") and "is the fastest per clip" in err[0]


def test_the_log_is_rotated_and_old_files_go(tiny: TinyBundle, video: Path, tmp_path: Path) -> None:
    options = ("--log", tmp_path / "log", "--log-max-bytes", "2000", "--log-keep", "1")
    code, out, _ = run(tiny.root, video, "--seconds", "0.2", *options)
    files = sorted(tmp_path.iterdir())
    assert code == 0 and len(files) == 2
    assert all(file.stat().st_size <= 2000 for file in files)
    assert sum(len(file.read_text().splitlines()) for file in files) < len(out)


def test_limit_ends_an_endless_stream(tiny: TinyBundle, video: Path) -> None:
    code, out, err = run(tiny.root, video, "--loop", "--seconds", "1", "--limit", "6")
    assert code == 0 and len(out) == 6
    counts = next(line for line in err if line.startswith(f"{video}: "))
    numbers = [int(word) for word in counts.removeprefix(f"{video}: ").replace(",", "").split() if word.isdigit()]
    assert numbers[0] == sum(numbers[1:4]) >= 6, "windows = answered + failed + dropped"


def test_ctrl_c_ends_it_with_the_counts(tiny: TinyBundle, video: Path) -> None:
    process = start(tiny.root, video, "--loop", "--seconds", "1")
    assert process.stdout and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"{video}: " in err and " answered, 0 failed, " in err and "Traceback" not in err
