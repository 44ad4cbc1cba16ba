"""The endpoints. Each is a few lines over `Service`; whatever goes wrong is one line of JSON."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hardroute.runtime.service.lingering_close import Linger
from hardroute.runtime.service.refusal import Refusal
from hardroute.runtime.service.service import Service
from hardroute.runtime.service.uploads import received

# Whoever restarts or routes around the service asks without a token, and learns nothing but that.
PROBES: Final = ("/healthz", "/readyz")
_VIDEO: Final = {"schema": {"type": "string", "format": "binary"}}
_FORM: Final = {"schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}}


def create_app(service: Service) -> FastAPI:
    """The ASGI application of a service, which it closes when it ends.

    >>> uvicorn.run(create_app(service))  # doctest: +SKIP
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    # The interactive pages would fetch their scripts from elsewhere.
    app = FastAPI(title="hardroute", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.add_middleware(_Door, service=service)
    app.add_middleware(Linger, max_bytes=service.settings.max_upload)
    _speak_json(app)

    @app.post(
        "/v1/predict", openapi_extra={"requestBody": {"content": {"video/*": _VIDEO, "multipart/form-data": _FORM}}}
    )
    async def predict(request: Request) -> dict[str, Any]:
        """Classify one video. The answer is its line in the routing log, and the probabilities of all classes."""
        with service.place():
            async with received(request, None, service.settings) as upload:
                return await service.answer(upload)

    @app.get("/v1/info")
    def info() -> dict[str, Any]:
        """What is served: bundle, classes, clip contract, certificate, limits."""
        return service.status.info()

    @app.get("/v1/watch")
    def watch() -> dict[str, bool | float]:
        """How far the traffic is from what was certified."""
        return service.status.watching()

    @app.post("/v1/watch/acknowledge")
    async def acknowledge(kind: str) -> dict[str, Any]:
        """Let an alarm go that somebody has seen to; it may come again."""
        return await service.acknowledge(kind)

    @app.get("/v1/log/checkpoint")
    def checkpoint() -> Response:
        """The routing log's last signed checkpoint; it holds all lines up to its number."""
        note = service.log.checkpoint if service.log else None
        if note is None:
            raise Refusal(404, "there is no signed checkpoint of a routing log here, or none yet")
        return Response(note, media_type="text/plain; charset=utf-8")

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> JSONResponse:
        """Clips can be answered and logged: 200, otherwise 503."""
        state = service.status.readiness()
        return JSONResponse(state, 200 if state["ready"] else 503)

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus' text format."""
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def _speak_json(app: FastAPI) -> None:
    def say(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": text}, status, headers)

    @app.exception_handler(Refusal)
    def refused(request: Request, error: Refusal) -> JSONResponse:
        return say(error.status, str(error), error.headers)

    @app.exception_handler(ClientDisconnect)
    def left(request: Request, error: ClientDisconnect) -> JSONResponse:
        return say(400, "the upload broke off")

    @app.exception_handler(HTTPException)
    def unknown(request: Request, error: HTTPException) -> JSONResponse:
        return say(error.status_code, str(error.detail).lower(), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return say(400, "the request is not as the documentation says")

    @app.exception_handler(Exception)
    def bug(request: Request, error: Exception) -> JSONResponse:
        # The traceback goes to the server's own log.
        return say(500, "internal error; the server's log has the details")


class _Door:
    """Asks for the token, before a byte of the body is read, and counts what each request got."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._count = service.metrics.requests
        token = service.settings.token
        self._token = _digest(f"Bearer {token}".encode()) if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        code = 500

        async def counted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            if self._admits(scope):
                await self._app(scope, receive, counted)
            else:
                refusal = JSONResponse({"error": "this needs `Authorization: Bearer TOKEN`"}, 401)
                refusal.headers["WWW-Authenticate"] = "Bearer"
                await refusal(scope, receive, counted)
        finally:
            # Only paths that exist get a counter of their own: clients must not be able to make up new ones.
            endpoint = getattr(scope.get("route"), "path", "other")
            self._count.labels(endpoint, str(code)).inc()

    def _admits(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in PROBES:
            return True
        shown = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(_digest(shown), self._token)


def _digest(text: bytes) -> bytes:
    # Of equal length, so that the comparison's time does not tell the token's.
    return hashlib.sha256(text).digest()
