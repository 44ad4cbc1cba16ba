"""The cage: a decoder that crashes, hangs, allocates or was turned costs its video and nothing else."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hardroute.runtime.clips import ClipContract, Limits, cage, decode
from hardroute.runtime.clips.cage import Cage, Task
from hardroute.runtime.clips.file_type import open_video
from hardroute.runtime.clips.frames import ClipFrames
from hardroute.runtime.clips.sampling import Spread
from hardroute.runtime.errors import ClipError
from tests.support.forks import in_child
from tests.support.videos import grey_frames, write

CONTRACT = ClipContract(frames=4, height=16, width=16)
LIMITS = Limits(max_decode_seconds=1.0, max_cpu_seconds=30.0, max_memory=256 * 2**20)
MISBEHAVING = "tests.support.misbehaving_child"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("cage") / "good.avi", grey_frames(20), fps=10)


@pytest.fixture(scope="module")
def caged() -> Iterator[Cage]:
    with Cage(most=2, module=MISBEHAVING) as cage:
        yield cage


def through(caged: Cage, path: Path, name: str = "good.avi", limits: Limits = LIMITS) -> ClipFrames:
    with open_video(path, limits) as source:
        return caged.decode(source, Task(name, source.demuxer, CONTRACT, limits, Spread(), False))


@pytest.mark.parametrize(
    "name, limits, says",
    [
        ("crash.avi", LIMITS, "SIGSEGV"),
        ("exit.avi", LIMITS, "exit code 3"),
        ("sleep.avi", replace(LIMITS, max_decode_seconds=0.2), "took longer than 0.2 seconds"),
        ("spin.avi", replace(LIMITS, max_decode_seconds=60, max_cpu_seconds=0.1), "0.1 seconds of CPU"),
        ("allocate.avi", LIMITS, "more memory than is allowed"),
        ("bug.avi", LIMITS, "IndexError"),
    ],
)
def test_it_costs_that_video_and_the_next_is_answered(
    caged: Cage, video: Path, name: str, limits: Limits, says: str
) -> None:
    with pytest.raises(ClipError) as caught:
        through(caged, video, name, limits)
    assert name in str(caught.value) and says in str(caught.value) and str(caught.value).isprintable()
    assert through(caged, video).decoded == 20


def test_the_others_are_answered_meanwhile(caged: Cage, video: Path) -> None:
    began = threading.Event()

    def hang() -> str:
        began.set()
        with pytest.raises(ClipError) as caught:
            through(caged, video, "sleep.avi", replace(LIMITS, max_decode_seconds=3.0))
        return str(caught.value)

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(hang)
        began.wait()
        answers = [through(caged, video).decoded for _ in range(20)]
        assert answers == [20] * 20 and not hanging.done()
        assert "took longer" in hanging.result()


def test_a_decoder_that_was_turned_reaches_nothing(caged: Cage, video: Path) -> None:
    with pytest.raises(ClipError) as caught:
        through(caged, video, "write.avi")
    # Files, sockets, signals, processes, folders.
    assert str(caught.value).count("refused") == 8, caught.value


def test_memory_is_bounded_from_outside(caged: Cage, video: Path) -> None:
    through(caged, video)
    (pid,) = caged.pids[:1]
    text = Path(f"/proc/{pid}/limits").read_text()
    soft = int(next(line for line in text.splitlines() if "address space" in line).split()[3])
    assert LIMITS.max_memory < soft < LIMITS.max_memory + 2**31


def test_no_more_children_than_allowed_and_they_are_used_again(video: Path) -> None:
    seen = set()
    with Cage(most=2) as own:
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: through(own, video), range(24)))
        seen |= set(own.pids)
        assert 1 <= len(seen) <= 2
        for _ in range(5):
            through(own, video)
        assert set(own.pids) == seen
    for pid in seen:
        assert not Path(f"/proc/{pid}/exe").exists()


def test_a_child_is_replaced_after_so_many_videos(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cage, "_MOST_VIDEOS", 3)
    with Cage(most=1) as own:
        pids = []
        for _ in range(6):
            through(own, video)
            pids += own.pids
    assert len(set(pids)) == 2


def test_what_a_child_answers_is_checked() -> None:
    good = {"starts": [0.0], "duration": 2.0, "decoded": 20, "expected": 20}
    assert cage._checked(good, 1) == ([0.0], 2.0, 20, 20)
    wrongs: list[dict[str, object]] = [{"starts": []}, {"starts": ["x"]}, {"duration": float("nan")}]
    wrongs += [{"duration": None}, {"decoded": "x"}]
    for wrong in wrongs:
        with pytest.raises((ValueError, TypeError)):
            cage._checked({**good, **wrong}, 1)


def test_a_forked_process_has_children_of_its_own(video: Path) -> None:
    before = decode(video, CONTRACT)
    pids = cage.default.pids
    told = in_child(lambda: str((decode(video, CONTRACT).frames_decoded, cage.default.pids)))
    assert told.startswith("(20, ") and not any(str(pid) in told for pid in pids)
    assert np.array_equal(decode(video, CONTRACT).frames, before.frames) and cage.default.pids == pids


def test_a_child_ends_with_its_parent(video: Path) -> None:
    def leave() -> str:
        decode(video, CONTRACT)
        return " ".join(map(str, cage.default.pids))

    # It ends by os._exit, without a word to anybody.
    for pid in map(int, in_child(leave).strip("'").split()):
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_no_secret_of_the_environment_reaches_a_child(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDROUTE_TOKEN", "hunter2")
    with Cage(most=1) as own:
        through(own, video)
        for pid in own.pids:
            assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_system_without_means_is_told_loudly(
    video: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cage, "_warned", threading.Event())
    monkeypatch.setattr(cage.Child, "_receive", lambda *_: {"force": ["limits"]})
    monkeypatch.setattr(cage, "_address_space", lambda _: 1)
    child = cage.Child()
    child._greet("x")
    child.close()
    assert "neither seccomp nor Landlock" in caplog.text


def test_both_are_in_force_here() -> None:
    if os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("no table of system calls")
    from hardroute.runtime.clips import sandbox
    from tests.support.forks import in_child as apart

    assert "seccomp" in apart(lambda: str(sandbox.confine()))
