"""Network sources: cut off, stalled, hostile or gone, against a server on this machine."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardroute import ClipContract, Engine
from hardroute.runtime.clips import Limits
from hardroute.runtime.clips.file_type import open_video
from hardroute.runtime.clips.network_source import open_url
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams import Reconnect, Stream
from hardroute.runtime.streams.cutting import Manner, Step
from hardroute.runtime.streams.open_video import FileTake
from hardroute.runtime.streams.reader_process import IsolatedTake
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

    monkeypatch.setattr("hardroute.runtime.clips.cage.subprocess.Popen", popen)
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
        open_url(f"{server.url}/list.m3u8", "x", 5.0, Limits()),
    ):
        pass
    assert set(server.requests) == {"/list.m3u8"}, "the server was asked, and for nothing that it named itself"


def test_a_file_is_not_opened_by_its_address(tmp_path: Path) -> None:
    """Even if somebody asked the reader for network addresses to do so."""
    path = write(tmp_path / "a.avi", grey_frames(5))
    with pytest.raises(ClipError, match="cannot be opened"), open_url(f"file://{path}", "x", 2.0, Limits()):
        pass


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


def manner(name: str = "x", seconds: float = 1.0) -> Manner:
    return Manner(name, CONTRACT, Limits(), seconds, seconds, live=True)


def children() -> list[int]:
    text = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return [pid for pid in map(int, text.split()) if b"reader_child" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_decoder_that_crashes_is_a_lost_source() -> None:
    def answer(number: int, send: Send) -> None:
        for part in multipart(np.repeat(grey_frames(50), 10, axis=0)):
            send(part)
            if server.released.wait(0.01):
                return

    with serving(answer) as server:
        steps = IsolatedTake(server.url, PATIENCE).steps(manner())
        assert next(steps).frames > 0
        for child in children():
            os.kill(child, signal.SIGSEGV)
        with pytest.raises(ClipError, match="its reader died"):
            list(steps)


def test_the_child_gets_the_very_frames_and_the_address_is_on_no_command_line(video: Path) -> None:
    data = video.read_bytes()
    arguments: list[bytes] = []

    def answer(number: int, send: Send) -> None:
        arguments.extend(Path(f"/proc/{child}/cmdline").read_bytes() for child in children())
        send(data)

    with serving(answer, "video/x-msvideo") as server:
        remote = list(IsolatedTake(f"{server.url}/?key=secret", PATIENCE).steps(manner()))
    with open_video(video, Limits()) as source:
        local = list(FileTake(source).steps(manner()))
    windows = [[step.cut for step in steps if step.cut] for steps in (remote, local)]
    assert len(windows[0]) == len(windows[1]) == 3
    for one, other in zip(*windows, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        assert (one.number, one.start, one.end) == (other.number, other.start, other.end)
    assert sum(step.frames for step in remote) == 30
    assert arguments and not any(b"secret" in line for line in arguments)


def test_a_child_says_little_besides_its_windows(video: Path) -> None:
    data = video.read_bytes()
    with serving(lambda n, send: send(data), "video/x-msvideo") as server:
        steps: list[Step] = list(IsolatedTake(server.url, PATIENCE).steps(manner(seconds=1.5)))
    assert sum(step.frames for step in steps) == 30 and len(steps) <= 2 + 3


def test_a_camera_that_is_not_there_is_lost_and_given_up(engine: Engine) -> None:
    with Stream(engine, 99, reconnect=Reconnect(first=0.001, longest=0.001, attempts=0)) as stream:
        events = list(stream)
    assert [event.kind for event in events] == ["source-lost", "end"]
    assert "camera:99: no such camera" in str(events[0].error)


@contextlib.contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server whose every answer a test writes itself."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                answer(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sending_on(location: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", location)
        request.end_headers()

    return answer


def test_a_server_may_not_send_on_to_another(video: Path) -> None:
    data = video.read_bytes()
    with (
        serving(lambda n, send: send(data), "video/x-msvideo") as inner,
        answering(sending_on(f"{inner.url}/a.avi")) as outer,
    ):
        with (
            pytest.raises(ClipError, match="sends on to another host or port"),
            open_url(f"{outer}/x", "x", 5.0, Limits()),
        ):
            pass
        assert not inner.connections
        # Unless it is asked for.
        with open_url(f"{outer}/x", "x", 5.0, Limits(), redirects=True) as source:
            assert len(list(source.frames(lambda: None))) == 30


@pytest.mark.parametrize("location", ["file:///etc/passwd", "rtsp://127.0.0.1:9/x", "ftp://127.0.0.1/x"])
def test_nor_to_something_else_even_if_asked(location: str) -> None:
    with (
        answering(sending_on(location)) as outer,
        pytest.raises(ClipError, match=r"sends on to|cannot be opened"),
        open_url(f"{outer}/x", "x", 5.0, Limits(), redirects=True),
    ):
        pass


def test_a_server_may_send_on_within_itself(video: Path) -> None:
    data = video.read_bytes()

    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/old":
            sending_on("/new")(request)
        else:
            request.send_response(200)
            request.end_headers()
            request.wfile.write(data)

    with answering(answer) as url, open_url(f"{url}/old", "x", 5.0, Limits()) as source:
        assert len(list(source.frames(lambda: None))) == 30


def test_a_session_description_opens_no_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video {port} RTP/AVP 26\r\n"

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "application/sdp")
        request.end_headers()
        request.wfile.write(text.encode())

    with (
        answering(answer) as url,
        pytest.raises(ClipError, match="cannot be opened"),
        open_url(f"{url}/x.sdp", "x", 3.0, Limits()),
    ):
        pass
