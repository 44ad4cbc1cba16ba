"""The published schemas are those of the code, and what is shipped and written is as they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hardroute.runtime.bundle import Bundle
from hardroute.runtime.routelog import EventRecord, RouteLog, Window
from tests.audit.test_cli import Audited
from tests.measure.schemas import FOLDER, schemas, written
from tests.support import routelogs


def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(json.loads((FOLDER / name).read_text(encoding="utf-8")))


def test_they_are_up_to_date() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert there == {name: written(schema) for name, schema in schemas().items()}, "run `make schemas`"


@pytest.mark.parametrize("name", sorted(schemas()))
def test_each_is_a_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas()[name])


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("manifest", "classes", ["only one"]),
        ("manifest", "more", 1),
        ("certificate", "report_sha256", "abc"),
        ("certificate", "schema_version", 1),
    ],
)
def test_the_shipped_bundle_is_as_they_say_and_a_broken_one_is_not(file: str, field: str, value: object) -> None:
    found = json.loads((Bundle.open("motion").root / f"{file}.json").read_bytes())
    checked = validator(f"{file}.schema.json")
    checked.validate(found)
    assert not checked.is_valid(found | {field: value})


def test_what_an_audit_writes_is_as_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(tmp_path, monkeypatch, capsys)
    assert audited.run("--source", f"same={audited.bundle}") == 0, audited.stderr
    for name in ("plan", "report", "certificate"):
        found = json.loads((audited.out / f"{name}.json").read_bytes())
        checked = validator(f"{name}.schema.json")
        checked.validate(found)
        assert not checked.is_valid(found | {"bundle": {}})
    validator("manifest.schema.json").validate(json.loads((audited.bundle / "manifest.json").read_bytes()))


def test_what_the_log_writes_is_as_they_say(tmp_path: Path) -> None:
    window = Window(index=3, start=1.5, end=2.5)
    with RouteLog(tmp_path / "log") as log:
        log.append(routelogs.record())
        log.append(routelogs.record(stream="door", window=window, alarms=["noise"], abstained=True))
        log.append(routelogs.record(video={"label": "up", "probability": 0.5, "clips": 4}))
        log.append(EventRecord.now("source-lost", stream="door", error="no frame for 10 s", window=window))
    checked = validator("routing-log-line.schema.json")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(lines) == 4
    for line in lines:
        checked.validate(line)
        assert not checked.is_valid({name: value for name, value in line.items() if name != "prev"})
        assert not checked.is_valid(line | {"seq": 0})
        assert not checked.is_valid(line | {"window": {"index": 3}, "alarms": "noise"})
