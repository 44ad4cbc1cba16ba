"""report.json is written and read by one type, and what it is read from need not be friendly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hardroute.audit.checks import CHECKS, Check, at_most
from hardroute.audit.report import Report, content
from hardroute.runtime.errors import DataError
from tests.audit.report.test_html import visible_text
from tests.audit.test_cli import Audited


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audited:
    return Audited(tmp_path, monkeypatch, capsys)


def test_what_is_written_is_read_back_the_same(audited: Audited) -> None:
    assert audited.run("--thorough", "--source", f"same={audited.bundle}") == 0, audited.stderr
    path = audited.out / "report.json"
    report = Report.read(path)
    assert report.to_json() == path.read_text()
    assert report.gate.eps_255 == 2 and report.transfer and list(report.transfer.models) == ["same"]
    assert list(audited.report()) == [
        "schema_version", "created", "seconds", "verdict", "bundle", "data", "thorough", "attack_precision", "device",
        "backend", "policy", "threat_model", "attacks", "clean", "eps", "router", "tables", "gflops", "transfer",
        "cost", "agreement", "baseline", "sanity", "clips", "versions",
    ]  # fmt: skip


def test_reports_from_before_a_field_was_added_are_read(audited: Audited) -> None:
    """And what a later writer adds is passed over."""
    assert audited.run() == 0
    path, old = audited.out / "report.json", audited.report()
    for key in (
        "thorough",
        "attack_precision",
        "device",
        "backend",
        "tables",
        "gflops",
        "transfer",
        "cost",
        "baseline",
    ):
        del old[key]
    del old["data"]["digest"], old["router"]["spread"], old["router"]["factor"]
    for point in old["eps"]:
        for found in point["per_attack"].values():
            for key in (
                "tested",
                "router_iou",
                "model_iou",
                "router_slope",
                "model_slope",
                "load_before",
                "load_after",
            ):
                del found[key]
    for attack in old["attacks"]:
        del attack["search"], attack["wrong_classes"]
    path.write_text(json.dumps(old | {"later": {"proven": 1}}))
    report = Report.read(path)
    assert report.attack_precision == "fp32" and report.cost is None and report.tables.this_model is None
    assert report.verdict.passed and report.clean.both.successes == 24


def without_a_verdict(report: dict[str, Any]) -> None:
    del report["verdict"]


def another_version(report: dict[str, Any]) -> None:
    report["schema_version"] = 2


def no_version(report: dict[str, Any]) -> None:
    del report["schema_version"]


def text_for_a_number(report: dict[str, Any]) -> None:
    report["clean"]["both"]["successes"] = "many"


@pytest.mark.parametrize("spoil", [without_a_verdict, another_version, no_version, text_for_a_number])
def test_what_is_no_report_is_one_line(audited: Audited, spoil: Any) -> None:
    audited.run()
    path, report = audited.out / "report.json", audited.report()
    spoil(report)
    path.write_text(json.dumps(report))
    with pytest.raises(DataError, match=r"report\.json: not a report of schema version 1 \(.*run the audit again"):
        Report.read(path)


def test_what_cannot_be_a_report_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="No such file"):
        Report.read(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        Report.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="cannot be read"):
        Report.read(tmp_path / "pipe")
    (tmp_path / "large").write_text("[" * 1000)
    with pytest.raises(DataError, match="not a report"):
        Report.read(tmp_path / "large")
    monkeypatch.setattr(content, "MAX_BYTES", 999)
    with pytest.raises(DataError, match="larger than"):
        Report.read(tmp_path / "large")


def test_a_planted_check_is_in_verdict_report_page_and_terminal(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row, and nothing else knows of it."""
    row: Check[int] = Check(
        "enough clips",
        measure=lambda context: len(context.sample),
        judge=lambda found, policy: at_most(found, 10),
        describe=lambda found, judged: f"The sample has {found} clips.",
        record=lambda found: {"sample": found},
    )
    monkeypatch.setitem(CHECKS, row.name, row)
    assert audited.run() == 1
    report = audited.report()
    assert report["verdict"]["checks"][-1] == {
        "name": "enough clips", "measured": 24, "wants": "at most", "bound": 10,
        "sentence": "The sample has 24 clips.", "passed": False,
    }  # fmt: skip
    assert report["sanity"]["sample"] == 24 and not report["verdict"]["passed"]
    page = visible_text(audited.out / "report.html")
    assert "failed: enough clips" in page and "The sample has 24 clips." in page
    assert "enough clips" in audited.stdout and "The sample has 24 clips." in audited.stdout
