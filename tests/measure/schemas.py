"""`python -m tests.measure.schemas` writes docs/schemas: JSON schemas, made from the types that write and read files.

A schema says what may lie in a file; what must hold between fields (digests, counts that agree) only the reader checks.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Final, NotRequired, get_args, get_type_hints, is_typeddict

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from hardroute.audit.plan import Plan
from hardroute.audit.report import Report
from hardroute.runtime.bundle import Certificate, Manifest
from hardroute.runtime.routelog import EventRecord, RouteRecord

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "schemas"
DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
# What the log itself puts before each record.
_LINE: Final[dict[str, Any]] = {
    "seq": {"type": "integer", "minimum": 1},
    "prev": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}


def schemas() -> dict[str, dict[str, Any]]:
    """By the name of the file in docs/schemas."""
    return {
        "manifest.schema.json": _of(Manifest, "manifest.json of a bundle"),
        "certificate.schema.json": _of(Certificate, "certificate.json of a bundle"),
        "plan.schema.json": _of(Plan, "plan.json of an audit"),
        "report.schema.json": _of(Report, "report.json of an audit"),
        "routing-log-line.schema.json": _line(),
    }


def written(schema: dict[str, Any]) -> str:
    """The text of its file."""
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def _of(kind: Any, title: str) -> dict[str, Any]:
    return {"$schema": DRAFT, **TypeAdapter(kind).json_schema(), "title": title}


def _line() -> dict[str, Any]:
    """Of an answered clip, or of an event; later fields may be added to both."""
    kinds: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for record in (RouteRecord, EventRecord):
        schema = TypeAdapter(_object(record)).json_schema()
        shared |= schema.pop("$defs", {})
        schema["properties"] = _LINE | schema["properties"]
        schema["required"] = [*_LINE, *schema["required"]]
        kinds.append(schema)
    return {"$schema": DRAFT, "title": "one line of the routing log", "$defs": shared, "anyOf": kinds}


def _object(kind: Any) -> Any:
    """A dataclass or TypedDict as pydantic reads it before Python 3.12; what is None is left out of a line."""
    left_out = {field.name for field in fields(kind) if field.default is None} if is_dataclass(kind) else set()
    told = {
        name: NotRequired[_part(hint)] if name in left_out else _part(hint)
        for name, hint in get_type_hints(kind).items()
    }
    made = TypedDict(kind.__name__, told)  # type: ignore[misc]
    made.__doc__ = kind.__doc__
    return made


def _part(hint: Any) -> Any:
    (only, *others) = (
        [each for each in get_args(hint) if each is not NoneType] if NoneType in get_args(hint) else [hint]
    )
    if others:
        raise TypeError(f"{hint}: a field of the log is of one type, or left out")
    return _object(only) if is_typeddict(only) else only


def main() -> None:
    """Writes them."""
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / name).write_text(written(schema), encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
