"""Bodies of every kind, cut at every place: the video's bytes come out whole, or a refusal says why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from hardroute.runtime.service.lingering_close import Linger
from hardroute.runtime.service.multipart import FormBody
from hardroute.runtime.service.refusal import Refusal
from hardroute.runtime.service.settings import ServiceSettings
from hardroute.runtime.service.uploads import OVERHEAD_BYTES, WRITE_BYTES, received, safe_name

BOUNDARY = "----edge"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
# What the first check takes for an AVI file.
AVI = b"RIFF\x00\x00\x00\x00AVI " + bytes(range(256)) * 40
SMALL = ServiceSettings(max_upload=len(AVI), upload_seconds=60)


def part(name: str, data: bytes, filename: str | None = None) -> bytes:
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def request(kind: str, chunks: AsyncIterator[bytes], length: int | None = None, query: str = "") -> Request:
    headers = [(b"content-type", kind.encode())] + ([(b"content-length", b"%d" % length)] if length else [])

    async def receive() -> Message:
        async for chunk in chunks:
            return {"type": "http.request", "body": chunk, "more_body": True}
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": query.encode()}
    return Request(scope, receive)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def upload(
    folder: Path, kind: str, body: bytes, *, size: int = 1000, settings: ServiceSettings = SMALL, query: str = ""
) -> tuple[bytes, str]:
    """What arrives: the file's bytes and its name. Afterwards nothing of it is left."""

    async def receive() -> tuple[bytes, str]:
        async with received(request(kind, pieces(body, size), query=query), folder, settings) as arrived:
            return arrived.path.read_bytes(), arrived.name

    try:
        return asyncio.run(receive())
    finally:
        assert list(folder.iterdir()) == []


def refusal(folder: Path, kind: str, body: bytes, **more: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        upload(folder, kind, body, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value) and str(folder) not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", ["video/mp4", "video/x-msvideo; codecs=none", "application/octet-stream"])
def test_a_raw_body_is_the_video(tmp_path: Path, kind: str) -> None:
    assert upload(tmp_path, kind, AVI, query="name=a%20cat.avi") == (AVI, "a cat.avi")
    assert upload(tmp_path, kind, AVI) == (AVI, "upload")


def test_a_form_brings_its_file_and_name(tmp_path: Path) -> None:
    body = form(part("note", b"hello"), part("file", AVI, "films/cat.avi"), part("more", b"x" * 500))
    assert upload(tmp_path, FORM, body) == (AVI, "cat.avi")


def test_a_long_video_arrives_whole(tmp_path: Path) -> None:
    video = AVI + bytes(range(255)) * (3 * WRITE_BYTES // 255)
    settings = ServiceSettings(max_upload=len(video))
    assert upload(tmp_path, "video/mp4", video, size=60_000, settings=settings)[0] == video


@given(video=st.binary(min_size=1, max_size=300), size=st.integers(1, 400))
def test_a_form_is_the_same_however_it_is_cut(video: bytes, size: int) -> None:
    # A boundary's beginning inside the video must stay the video's.
    video += f"\r\n--{BOUNDARY[:-1]}".encode()
    data = form(part("note", b"hello"), part("file", video, "cat.avi"), part("more", b"x" * 50))
    body = FormBody(BOUNDARY.encode())
    found = [piece for start in range(0, len(data), size) for piece in body.feed(data[start : start + size])]
    body.finish()
    assert (b"".join(found), body.name) == (video, "cat.avi")


@pytest.mark.parametrize(
    "kind, body, status, says",
    [
        ("video/mp4", b"", 400, "empty"),
        (FORM, b"", 400, "ends too early"),
        (FORM, form(part("file", b"", "a.avi")), 400, "empty"),
        (FORM, form(part("file", AVI, "a.avi"))[:-20], 400, "ends too early"),
        (FORM, form(part("file", AVI)), 400, "no file"),
        (FORM, form(part("file", AVI[:99], "a.avi"), part("file", AVI[:99], "b.avi")), 400, "several files"),
        (FORM, form(*[part("field", b"x")] * 20), 400, "parts"),
        (FORM, b"no form at all", 400, "broken"),
        (FORM, part("f" * 9_999, b"x"), 400, "broken"),
        ("multipart/form-data", AVI, 400, "boundary"),
        (f"multipart/form-data; boundary={'x' * 999}", AVI, 400, "boundary"),
        ("", AVI, 415, "content type"),
        ("image/png", AVI, 415, "content type"),
        ("application/json", b"{}", 415, "content type"),
        ("video/mp4", b"#!/bin/sh\necho hello\n", 415, "text"),
        ("video/mp4", b"\x89PNG" + AVI, 415, "PNG"),
        (FORM, form(part("file", b"PK\x03\x04" + b"\xee" * 99, "a.mp4")), 415, "ZIP"),
        ("video/mp4", AVI + b"!", 413, "above the limit"),
        (FORM, form(part("file", AVI + b"!", "a.avi")), 413, "above the limit"),
        (FORM, form(part("note", bytes(2 * OVERHEAD_BYTES)), part("file", AVI, "a.avi")), 413, "above the limit"),
    ],
)
def test_what_is_refused(tmp_path: Path, kind: str, body: bytes, status: int, says: str) -> None:
    refused = refusal(tmp_path, kind, body)
    assert (refused.status, says in str(refused)) == (status, True), refused


def counted(read: list[int], data: bytes = AVI[:1000]) -> Callable[[], AsyncIterator[bytes]]:
    """Chunks without end; `read` learns how many were taken."""

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            read.append(len(data))
            yield data

    return chunks


@pytest.mark.parametrize("kind, head, status", [("video/mp4", AVI[:1000], 413), ("video/mp4", b"\xee" * 1000, 415)])
def test_an_endless_body_is_not_read_to_its_end(tmp_path: Path, kind: str, head: bytes, status: int) -> None:
    read: list[int] = []

    async def receive() -> None:
        async with received(request(kind, counted(read, head)()), tmp_path, SMALL):
            raise AssertionError("it arrived")

    with pytest.raises(Refusal) as caught:
        asyncio.run(receive())
    assert caught.value.status == status
    assert sum(read) <= SMALL.max_upload + 1000
    assert list(tmp_path.iterdir()) == []


def test_a_length_above_the_limit_is_refused_unread(tmp_path: Path) -> None:
    read: list[int] = []

    async def receive() -> None:
        asked = request("video/mp4", counted(read)(), length=SMALL.max_upload + OVERHEAD_BYTES + 1)
        async with received(asked, tmp_path, SMALL):
            raise AssertionError("it arrived")

    with pytest.raises(Refusal) as caught:
        asyncio.run(receive())
    assert (caught.value.status, read) == (413, [])


def test_a_client_that_stalls_is_let_go(tmp_path: Path) -> None:
    async def stalls() -> AsyncIterator[bytes]:
        yield AVI[:100]
        await asyncio.Event().wait()

    async def receive() -> None:
        async with received(request("video/mp4", stalls()), tmp_path, ServiceSettings(upload_seconds=0.05)):
            raise AssertionError("it arrived")

    with pytest.raises(Refusal) as caught:
        asyncio.run(receive())
    assert caught.value.status == 408
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sent, shown",
    [
        ("cat.mp4", "cat.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\cat.mp4", "cat.mp4"),
        ("a\nb\x1b[31m.mp4", "a b?[31m.mp4"),
        ("..", "upload"),
        ("folder/", "folder"),
        (" ", "upload"),
        ("", "upload"),
        ("x" * 500 + ".mp4", "x" * 124 + ".mp4"),
    ],
)
def test_names_are_safe_to_show(sent: str, shown: str) -> None:
    assert safe_name(sent) == shown


def test_a_full_disk_is_the_servers_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hardroute.runtime.service.uploads._copy", full)
    refused = refusal(tmp_path, "video/mp4", AVI)
    assert (refused.status, refused.headers) == (503, {"Retry-After": "1"})
    monkeypatch.setattr("tempfile.mkdtemp", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert refusal(tmp_path, "video/mp4", AVI).status == 503


class Connection:
    """A server's side of a client that sends chunk after chunk, and at None waits for the answer's end."""

    def __init__(self, chunks: list[bytes | None], more: bool) -> None:
        self.sent: list[Message] = []
        self.read = 0
        self._chunks, self._more = iter(chunks), more

    async def receive(self) -> Message:
        chunk = next(self._chunks, b"")
        if chunk is None:
            await asyncio.Event().wait()
        self.read += len(chunk or b"")
        return {"type": "http.request", "body": chunk, "more_body": self._more}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def answered(self, reads: int, max_bytes: int = 1000) -> None:
        """Serves it by an application that reads so many chunks and says no."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            for _ in range(reads):
                await receive()
            await JSONResponse({"error": "no"}, 415)(scope, receive, send)

        scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
        asyncio.run(Linger(application, max_bytes, seconds=0.05)(scope, self.receive, self.send))

    @property
    def closes(self) -> bool:
        return (b"connection", b"close") in self.sent[0]["headers"]


def test_a_request_that_was_read_keeps_its_connection() -> None:
    client = Connection([b"all"], more=False)
    client.answered(reads=1)
    assert not client.closes and [message.get("more_body", False) for message in client.sent] == [False, False]


@pytest.mark.parametrize("chunks", [[b"x" * 300] * 1000, [b"x" * 300] * 2 + [None]])
def test_a_client_that_sends_on_after_its_refusal_has_the_answer_and_loses_the_connection(
    chunks: list[bytes | None],
) -> None:
    client = Connection(chunks, more=True)
    client.answered(reads=1)
    start, body, end = client.sent
    assert client.closes and (start["status"], body["body"]) == (415, b'{"error":"no"}')
    assert (body["more_body"], end.get("body", b""), end.get("more_body", False)) == (True, b"", False)
    assert 300 < client.read <= 300 + 1000 + 300
