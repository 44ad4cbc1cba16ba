"""An upload that is refused comes to an end, whatever its client still sends."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS: Final = 2.0
_logger = logging.getLogger(__name__)


class Linger:
    """Closes the connection of a client that is answered before it has sent all of its request.

    uvicorn would read on for as long as anything comes. To close at once might lose the answer, for a system that has
    unread bytes resets the connection (RFC 9112, section 9.6). So the answer goes out whole, what still comes is thrown
    away for a moment, and then the connection ends.

    Args:
        max_bytes: thrown away, at most.
        seconds: that this takes, at most.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float = SECONDS) -> None:
        self._app, self._max_bytes, self._seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        ended = early = False

        async def noted() -> Message:
            nonlocal ended
            message = await receive()
            ended = not message.get("more_body", False)
            return message

        async def answer(message: Message) -> None:
            nonlocal early
            if message["type"] == "http.response.start" and not ended:
                early = True
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if not early or message.get("more_body", False) or message["type"] == "http.response.start":
                await send(message)
                return
            # Not its end yet: that closes the connection.
            await send({**message, "more_body": True})
            left = self._max_bytes
            try:
                async with asyncio.timeout(self._seconds):
                    while not ended and left > 0:
                        left -= len((await noted()).get("body", b""))
            except TimeoutError:
                _logger.debug("a refused client still sends; its connection ends")
            await send({"type": "http.response.body"})

        await self._app(scope, noted, answer)


def _has_body(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
