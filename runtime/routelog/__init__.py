"""The routing log: one JSON line for every clip, chained by hashes, so that it can be trusted a year later.

`docs/routing-log.md` describes the lines. `verify_log` in verify.py finds what was changed, `summarise` in summary.py
says what the lines add up to; `python -m runtime log` has both.
"""

from hardroute.runtime.routelog.receipt import Receipt, with_receipts
from hardroute.runtime.routelog.record import SCHEMA, EventRecord, Record, RouteRecord, Window
from hardroute.runtime.routelog.settings import LogSettings
from hardroute.runtime.routelog.writer import RouteLog

__all__ = [
    "SCHEMA",
    "EventRecord",
    "LogSettings",
    "Receipt",
    "Record",
    "RouteLog",
    "RouteRecord",
    "Window",
    "with_receipts",
]
