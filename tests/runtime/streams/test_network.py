"""Network sources: cut off, stalled, hostile or gone, against a server on this machine."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hardroute import ClipContract, Engine
from hardroute.runtime.clips import cage
from hardroute.runtime.clips import frame_source as capture
from hardroute.runtime.clips.preprocess import fit_bgr
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams import Reconnect, Stream, StreamSettings
from hardroute.runtime.streams.open_video import open_file_take
from hardroute.runtime.streams.reader_process import open_live_take
from tests.support.bundles import make_bundle
from tests.support.gated import PATIENCE
from tests.support.videos import grey_frames, write
from tests.support.videoserver import multipart, serving

CONTRACT = ClipContract(frames=4, height=8, width=8)
AT_ONCE = Reconnect(first=0.001, longest=0.001)
Send = Callable[[bytes], object]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine.load(make_bundle(tmp_path_factory.mktemp("network") / "bundle").root, threads=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds, 10 frames a second."""
    frames = np.random.default_rng(0).integers(0, 256, (30, 24, 32, 3), np.uint8)
    return write(tmp_path_factory.mktemp("video") / "a.avi", frames, fps=10)


def test_a_source_that_ends_comes_back_with_the_answers_of_the_file(engine: Engine, video: Path) -> None:
    data = video.read_bytes()
    with (
        serving(lambda n, send: send(data), "video/x-msvideo") as server,
        Stream(
            engine, f"{server.url}/a.avi", seconds=1.0, policy="block", reconnect=AT_ONCE, timeout=PATIENCE
        ) as stream,
    ):
        events = [next(stream) for _ in range(9)]
        assert stream.counts.reconnects >= 1 and stream.counts.unusable >= 1
    assert [event.kind for event in events] == ["window"] * 3 + ["source-lost", "source-back"] + ["window"] * 3 + [
        "source-lost"
    ]
    assert [event.index for event in events if event.prediction] == list(range(6))
    assert {event.source for event in events} == {f"{server.url}/a.avi"}
    alone = list(Stream(engine, video, seconds=1.0))
    for connection in (events[:3], events[5:8]):
        for found, expected in zip(connection, alone, strict=True):
            assert found.prediction and expected.prediction
            np.testing.assert_allclose(found.prediction.logits, expected.prediction.logits, atol=1e-5)
            assert (found.start, found.end) == (expected.start, expected.end)


def test_a_source_that_stalls_is_left_after_the_time_limit(engine: Engine, video: Path) -> None:
    data = video.read_bytes()

    def answer(number: int, send: Send) -> None:
        send(data)
        if number == 0:
            server.released.wait(PATIENCE)

    with (
        serving(answer, "video/x-msvideo") as server,
        Stream(engine, server.url, seconds=1.0, policy="block", reconnect=AT_ONCE, timeout=0.5) as stream,
    ):
        lost = next(event for event in stream if event.kind == "source-lost")
        assert "no frame for 0.5 seconds" in str(lost.error) and server.connections == 1
        back = next(event for event in stream if event.kind == "source-back")
        assert back.video == 1 and server.connections == 2


def test_a_machine_without_room_for_a_reader_is_asked_again(
    engine: Engine, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = subprocess.Popen, iter([errno.EAGAIN, errno.EMFILE])

    def popen(*arguments: Any, **options: Any) -> Any:
        if number := next(refused, None):
            raise OSError(number, os.strerror(number))
        return start(*arguments, **options)

    monkeypatch.setattr("hardroute.runtime.streams.reader_process.subprocess.Popen", popen)
    data = video.read_bytes()
    with (
        serving(lambda n, send: send(data), "video/x-msvideo") as server,
        Stream(engine, server.url, seconds=1.0, policy="block", reconnect=AT_ONCE, timeout=PATIENCE) as stream,
    ):
        events = [next(stream) for _ in range(3)]
    assert [event.kind for event in events] == ["source-lost", "source-back", "window"]
    assert "its reader cannot be started (Resource temporarily unavailable)" in str(events[0].error)


def test_motion_jpeg_goes_by_the_time_of_arrival(engine: Engine) -> None:
    """FFmpeg would make up 25 frames a second, and find 20 frames too few for a window of a second."""

    def answer(number: int, send: Send) -> None:
        for part in multipart(np.repeat(grey_frames(50), 10, axis=0)):
            send(part)
            if server.released.wait(0.01):
                return

    with serving(answer) as server, Stream(engine, server.url, seconds=0.1, policy="block", timeout=PATIENCE) as stream:
        windows = [next(stream) for _ in range(5)]
        frames = stream.counts.frames
    assert [event.kind for event in windows] == ["window"] * 5
    assert frames >= 20, "a window of 0.1 s has ten frames of 10 ms or fewer, not two and a half"


def test_a_source_that_never_answers_is_given_up_after_so_many_tries(engine: Engine) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"rtsp://user:secret@127.0.0.1:{nobody.getsockname()[1]}/live?key=secret"
        with Stream(engine, url, reconnect=Reconnect(first=0.001, longest=0.001, attempts=2), timeout=1.0) as stream:
            events = list(stream)
    assert [event.kind for event in events] == ["source-lost", "end"]
    assert "cannot be opened" in str(events[0].error) and "given up after 2 tries" in str(events[1].error)
    assert not any("secret" in str(event) for event in events)


@pytest.mark.parametrize("kind", ["playlist", "playlist-of-addresses", "concat", "text", "nothing"])
def test_what_comes_over_the_network_names_nothing_else_to_open(tmp_path: Path, kind: str) -> None:
    secret = write(tmp_path / "secret.avi", grey_frames(30), fps=10)
    body = {
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "playlist-of-addresses": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n/other.ts\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {secret}\n",
        "text": "hello\n" * 100,
        "nothing": "",
    }[kind]

    def answer(number: int, send: Send) -> None:
        send(body.encode())

    with (
        serving(answer, "application/vnd.apple.mpegurl" if "playlist" in kind else "text/plain") as server,
        pytest.raises(ClipError, match="cannot be opened"),
        capture.open_url(f"{server.url}/list.m3u8", "x", 5.0),
    ):
        pass
    assert set(server.requests) == {"/list.m3u8"}, "the server was asked, and for nothing that it named itself"


def test_a_file_is_not_opened_by_its_address(tmp_path: Path) -> None:
    """Even if somebody asked the reader for network addresses to do so."""
    path = write(tmp_path / "a.avi", grey_frames(5))
    with pytest.raises(ClipError, match="cannot be opened"), capture.open_url(f"file://{path}", "x", 2.0):
        pass


def test_a_file_cannot_reach_the_network(tmp_path: Path) -> None:
    """The cage of files does not let HTTP through, also while a network source is open."""
    data = write(tmp_path / "a.avi", grey_frames(30), fps=10).read_bytes()
    with serving(lambda n, send: send(data), "video/x-msvideo") as server:
        with capture.open_url(server.url, "x", 5.0):
            with cage.caged(cage.FILES):
                other = cv2.VideoCapture(server.url, cv2.CAP_FFMPEG)
            assert not other.isOpened()
        assert server.connections == 1


def test_nobody_waits_for_a_source_that_hangs_while_it_is_opened(engine: Engine, video: Path) -> None:
    asked, expired = threading.Event(), threading.Event()

    def answer(number: int, send: Send) -> None:
        asked.set()
        if not server.released.wait(PATIENCE):
            expired.set()

    with serving(answer) as server:
        with Stream(engine, server.url, timeout=PATIENCE) as hanging:
            assert asked.wait(PATIENCE)
            # Other sources, of files and of the network, and clips; the server lets go only after all of them.
            assert len(list(Stream(engine, video, seconds=1.0))) == 3
            assert engine.predict(video).label
            data = video.read_bytes()
            with (
                serving(lambda n, send: send(data), "video/x-msvideo") as other,
                Stream(engine, other.url, seconds=1.0, policy="block") as stream,
            ):
                assert next(stream).prediction
            assert hanging.counts.frames == 0 and server.connections == 1
        # Leaving does not wait for the time limit either: the reader is a process that can be ended.
        assert not expired.is_set()


def test_a_decoder_that_crashes_is_a_lost_source() -> None:
    def answer(number: int, send: Send) -> None:
        for part in multipart(grey_frames(5)):
            send(part)
        server.released.wait(PATIENCE)

    with (
        serving(answer) as server,
        open_live_take(server.url, "x", CONTRACT, StreamSettings(timeout=PATIENCE)) as take,
    ):
        assert take.fps > 0
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGSEGV)
        with pytest.raises(ClipError, match="its reader died"):
            list(iter(take.grab, None))


def test_the_child_gets_the_very_frames_and_the_address_is_on_no_command_line(video: Path) -> None:
    data, arguments = video.read_bytes(), []

    def answer(number: int, send: Send) -> None:
        for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
            arguments.append(Path(f"/proc/{child}/cmdline").read_bytes())
        send(data)

    settings = StreamSettings(timeout=PATIENCE)
    with (
        serving(answer, "video/x-msvideo") as server,
        open_live_take(f"{server.url}/?key=secret", "x", CONTRACT, settings) as remote,
        open_file_take(video, settings) as local,
    ):
        assert remote.fps == local.fps
        while (stamp := local.grab()) is not None:
            assert remote.grab() == stamp
            frame, fitted = local.retrieve(), remote.retrieve()
            assert frame is not None and fitted is not None
            np.testing.assert_array_equal(fit_bgr(fitted, CONTRACT), fit_bgr(frame, CONTRACT))
        assert remote.grab() is None
    assert arguments and not any(b"secret" in line for line in arguments)


def test_a_camera_that_is_not_there_is_lost_and_given_up(engine: Engine) -> None:
    with Stream(engine, 99, reconnect=Reconnect(first=0.001, longest=0.001, attempts=0)) as stream:
        events = list(stream)
    assert [event.kind for event in events] == ["source-lost", "end"]
    assert "camera:99: no such camera" in str(events[0].error)
