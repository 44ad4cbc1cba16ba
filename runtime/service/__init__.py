"""A small HTTP service over the engine: answers clips, logs each before it answers, and tells how it is doing.

Needs the extra `serve`; only the settings do without.

>>> app = create_app(Service(engine, log=RouteLog("routes.jsonl")))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hardroute.runtime.service.settings import ServiceSettings

if TYPE_CHECKING:
    from hardroute.runtime.service.http import create_app
    from hardroute.runtime.service.service import Service

__all__ = ["Service", "ServiceSettings", "create_app"]


def __getattr__(name: str) -> Any:
    # FastAPI is dear to load, and `serve --help` needs no more than the settings.
    if name == "Service":
        from hardroute.runtime.service.service import Service

        return Service
    if name == "create_app":
        from hardroute.runtime.service.http import create_app

        return create_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
