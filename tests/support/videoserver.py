"""A camera on this machine: Motion JPEG or a file over HTTP, that stalls, dies and comes back as a test says."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


@dataclass
class VideoServer:
    """Answers the n-th connection with `answer(n, send)`, where `send` takes bytes.

    released: set when the test is over; an answer that stalls waits for it.
    """

    url: str = ""
    connections: int = 0
    requests: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


def multipart(frames: np.ndarray) -> Iterator[bytes]:
    """Parts of a Motion JPEG stream, one for each RGB frame."""
    for frame in frames:
        data = cv2.imencode(".jpg", np.ascontiguousarray(frame[..., ::-1]))[1].tobytes()
        yield b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(data), data)


@contextmanager
def serving(
    answer: Callable[[int, Callable[[bytes], object]], object],
    content_type: str = "multipart/x-mixed-replace; boundary=frame",
) -> Iterator[VideoServer]:
    """A server on a free port of this machine."""
    state, lock = VideoServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            with lock:
                number = state.connections
                state.connections += 1
                state.requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader may go
                answer(number, self.wfile.write)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
