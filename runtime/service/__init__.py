"""A small HTTP service over the engine: answers clips, logs each before it answers, and tells how it is doing.

Needs the extra `serve`.

>>> app = create_app(Service(engine, log=RouteLog("routes.jsonl")))  # doctest: +SKIP
"""

from hardroute.runtime.service.http import create_app
from hardroute.runtime.service.service import Service
from hardroute.runtime.service.settings import ServiceSettings

__all__ = ["Service", "ServiceSettings", "create_app"]
