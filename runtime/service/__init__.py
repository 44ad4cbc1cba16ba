"""A small HTTP service over the engine: answers clips, logs each before it answers, and tells how it is doing.

Needs the extra `serve`. Nothing is imported here, so that the command line works without it.

>>> from runtime.service.http import create_app  # doctest: +SKIP
>>> from runtime.service.service import Service  # doctest: +SKIP
>>> app = create_app(Service(engine, log=RouteLog("routes.jsonl")))  # doctest: +SKIP
"""
