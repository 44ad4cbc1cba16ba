"""A video from a client becomes a temporary file, within bounds on bytes and time, and never lies in memory."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from hardroute.runtime.clips.file_type import HEAD_BYTES, refuse_head
from hardroute.runtime.files import printable
from hardroute.runtime.service.multipart import Body, open_body
from hardroute.runtime.service.refusal import Refusal
from hardroute.runtime.service.settings import ServiceSettings

# Boundaries and headers of a multipart body, on top of the video itself.
OVERHEAD_BYTES: Final = 64 * 2**10
WRITE_BYTES: Final = 256 * 2**10
NAME_CHARACTERS: Final = 128
NO_ROOM: Final = "the server has no room for the upload; try again later"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Upload:
    """A video that has arrived.

    path: the temporary file; its name is the server's. name: the client's name for it, made safe to show.
    seconds: how long it took to arrive.
    """

    path: Path
    name: str
    seconds: float


@asynccontextmanager
async def received(request: Request, folder: Path | None, settings: ServiceSettings) -> AsyncIterator[Upload]:
    """Writes the request's video into a folder of its own in `folder`, and removes both afterwards.

    Nothing lies there between requests: a temporary folder that a system tidies up may not be there next week.

    Args:
        request: whose body brings the video.
        folder: None: the system's for temporary files.
        settings: how large it may be, and how slow.

    Raises:
        Refusal: 400 nothing or a broken form, 408 too slow, 413 too large, 415 not a video, 503 no room.
    """
    body = open_body(request)
    if int(request.headers.get("content-length") or 0) > settings.max_upload + OVERHEAD_BYTES:
        raise _too_large(settings)
    started = time.perf_counter()
    with _own_folder(folder) as own:
        path = Path(own) / "video"
        try:
            with open(path, "xb") as file:
                async with asyncio.timeout(settings.upload_seconds):
                    await _copy(request, body, file, settings)
        except TimeoutError:
            raise Refusal(408, f"the video did not arrive within {settings.upload_seconds:g} seconds") from None
        except OSError as error:
            raise _no_room(error) from None
        name = safe_name(body.name or request.query_params.get("name", ""))
        yield Upload(path, name, time.perf_counter() - started)


def safe_name(name: str) -> str:
    """The last part of a client's file name, as printable text of bounded length.

    >>> safe_name("C:\\\\films\\\\cat.mp4"), safe_name("../../etc/passwd"), safe_name("")
    ('cat.mp4', 'passwd', 'upload')
    """
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    shown = printable(last[-NAME_CHARACTERS:])
    return shown if shown.strip(". ") else "upload"


def _own_folder(parent: Path | None) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(dir=parent, prefix="hardroute-", ignore_cleanup_errors=True)
    except OSError as error:
        raise _no_room(error) from None


async def _copy(request: Request, body: Body, file: BinaryIO, settings: ServiceSettings) -> None:
    total = size = 0
    head, held = b"", bytearray()
    async for chunk in request.stream():
        total += len(chunk)
        # What a client wraps around the video must not be a way past the limit either.
        if total > settings.max_upload + OVERHEAD_BYTES:
            raise _too_large(settings)
        for data in body.feed(chunk):
            size += len(data)
            held += data
            if len(head) < HEAD_BYTES:
                head += data[: HEAD_BYTES - len(head)]
                # As soon as it can be told, so that nobody sends a whole archive in vain.
                if len(head) == HEAD_BYTES:
                    _check_head(head)
        if size > settings.max_upload:
            raise _too_large(settings)
        if len(held) >= WRITE_BYTES:
            await run_in_threadpool(file.write, bytes(held))
            held.clear()
    body.finish()
    if not size:
        raise Refusal(400, "the video is empty; send its bytes as the body, or as the file of a form")
    _check_head(head)
    await run_in_threadpool(file.write, bytes(held))


def _check_head(head: bytes) -> None:
    if refusal := refuse_head(head):
        raise Refusal(415, refusal)


def _too_large(settings: ServiceSettings) -> Refusal:
    return Refusal(413, f"the video is above the limit of {settings.max_upload:,} bytes; cut or scale it down")


def _no_room(error: OSError) -> Refusal:
    # Which disk, and why, is for whoever runs the service.
    _logger.error("an upload cannot be kept: %s", error)
    return Refusal(503, NO_ROOM)
