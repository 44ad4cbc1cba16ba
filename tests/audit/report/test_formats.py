"""The report as others read it: exact names of their fields, the report's own figures, and text that stays text."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from hardroute.audit.report import Report
from hardroute.audit.report.attestations import ml_bom, svr
from hardroute.audit.report.attestations import test_result as result_of_tests
from hardroute.audit.report.ci import junit, summary
from tests.audit.test_cli import Audited
from tests.support.audit_bundles import lax_policy

HOSTILE = "<b>|`x`*_[a](https://evil.example)\n| \x1b[31m@all www.evil.example \x00\ud800"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Of one bundle: passed and certified, passed below the floors, refused."""
    found = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("formats")
        audited = Audited(folder, monkeypatch, _Quiet(), floors=True)  # type: ignore[arg-type]
        assert audited.run() == 0
        found["below"] = Report.read(audited.out / "report.json")
        assert not (audited.out / "svr.json").exists()
        monkeypatch.setattr("hardroute.audit.floors.FLOORS", ())
        assert audited.run() == 0
        found["certified"] = Report.read(audited.out / "report.json")
        for name, made in _made(found["certified"]).items():
            assert (audited.out / name).read_bytes() == made
        lax_policy(audited.policy, robust_accuracy=0.99)
        assert audited.run() == 1
        found["refused"] = Report.read(audited.out / "report.json")
        assert not (audited.out / "svr.json").exists() and (audited.out / "test-result.json").exists()
    return found


class _Quiet:
    """In place of capsys, which is of one test only."""

    def readouterr(self) -> Any:
        return type("Printed", (), {"out": "", "err": ""})


def _made(report: Report) -> dict[str, bytes]:
    return {
        "junit.xml": junit(report),
        "summary.md": summary(report).encode(),
        "test-result.json": result_of_tests(report),
        "svr.json": svr(report),
        "ml-bom.cdx.json": ml_bom(report),
    }


def hostile(report: Report) -> Report:
    """The same report with text of an attacker wherever a bundle, a set or a policy brings text."""
    checks = tuple(each.model_copy(update={"sentence": HOSTILE, "name": HOSTILE}) for each in report.verdict.checks)
    return report.model_copy(
        update={
            "bundle": report.bundle.model_copy(update={"name": HOSTILE}),
            "data": report.data.model_copy(update={"name": HOSTILE}),
            "policy": report.policy.model_copy(update={"title": f'custom policy "{HOSTILE}"'}),
            "verdict": report.verdict.model_copy(update={"checks": checks}),
            "not_certified": (HOSTILE,),
        }
    )


@pytest.mark.parametrize("which", ["certified", "below", "refused"])
def test_junit_has_a_case_for_each_check_and_a_sentence_for_each_failure(
    reports: dict[str, Report], which: str
) -> None:
    report = reports[which]
    suites = ElementTree.fromstring(junit(report))  # noqa: S314 - our own
    (suite,) = suites
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [check.name for check in report.verdict.checks]
    failed = {case.get("name"): case.find("failure") for case in cases if case.find("failure") is not None}
    assert set(failed) == ({"robust accuracy"} if which == "refused" else set())
    for check in report.verdict.checks:
        if not check.passed:
            failure = failed[check.name]
            assert failure is not None and failure.get("message") == check.sentence
            assert f"asked {check.wants} 0.99" in (failure.text or "")
    for element in (suites, suite):
        assert element.get("tests") == str(len(cases)) and element.get("failures") == str(len(failed))
    told = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert told["bundle.sha256"] == report.bundle.digest and told["policy"] == 'custom policy "lax"'
    assert ("not_certified" in told) is (which == "below")


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("certified", "certificate: written"),
        ("below", "certificate: 24 distinct clips"),
        ("refused", "certificate: refus"),
    ],
)
def test_the_summary_is_a_heading_four_lines_and_a_table(reports: dict[str, Report], which: str, said: str) -> None:
    report = reports[which]
    lines = summary(report).splitlines()
    assert lines[0].startswith('### tiny: custom policy "lax" ' + ("refused" if which == "refused" else "passed"))
    assert sum(line.startswith("- ") for line in lines) == 4 and said in "\n".join(lines)
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 1 + len(report.verdict.checks)
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)
    assert sum("**failed**" in row for row in rows) == (which == "refused")


def test_text_of_strangers_is_neither_markup_nor_another_line(reports: dict[str, Report]) -> None:
    report = hostile(reports["certified"])
    text = summary(report)
    assert len(text.splitlines()) == len(summary(reports["certified"]).splitlines())
    for live in ("<b>", "](", "://", "@all", "`x`", "www."):
        assert not re.search(r"(?<!\\)" + re.escape(live), text), live
    assert "\x1b" not in text and "\x00" not in text
    ElementTree.fromstring(junit(report))  # noqa: S314 - our own; XML has no \x00 or \x1b, and no lone surrogate
    for name, made in _made(report).items():
        assert not re.search(rb"\\u(001b|0000|d800)", made), name


def statement(data: bytes, report: Report, kind: str) -> Any:
    found = json.loads(data)
    assert set(found) == {"_type", "subject", "predicateType", "predicate"}
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["subject"] == [{"name": "manifest.json", "digest": {"sha256": report.bundle.digest}}]
    assert found["predicateType"] == f"https://in-toto.io/attestation/{kind}/v0.1"
    return found["predicate"]


@pytest.mark.parametrize(("which", "result"), [("certified", "PASSED"), ("below", "WARNED"), ("refused", "FAILED")])
def test_the_statement_of_test_results(reports: dict[str, Report], which: str, result: str) -> None:
    report = reports[which]
    said = statement(result_of_tests(report), report, "test-result")
    assert set(said) == {"result", "configuration", "passedTests", "warnedTests", "failedTests"}
    assert said["result"] == result and bool(said["warnedTests"]) is (result == "WARNED")
    assert said["failedTests"] == (["robust accuracy"] if result == "FAILED" else [])
    assert said["passedTests"] + said["failedTests"] and set(said["passedTests"] + said["failedTests"]) == {
        check.name for check in report.verdict.checks
    }
    assert {each["name"]: each["digest"] for each in said["configuration"]} == {
        "policy": {"sha256": report.policy.digest},
        "clips": {"sha256": report.data.digest},
        "plan.json": {"sha256": report.plan_sha256},
    }


def test_the_verification_result_names_what_was_verified(reports: dict[str, Report]) -> None:
    report = reports["certified"]
    said = statement(svr(report), report, "svr")
    assert set(said) == {"verifier", "timeCreated", "properties"}
    assert said["verifier"]["id"].startswith("pkg:generic/hardroute")
    assert said["verifier"]["policy"]["digest"] == {"sha256": report.policy.digest}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", said["timeCreated"])
    assert said["properties"][:3] == ["HARDROUTE_CERTIFIED", "HARDROUTE_CLEAN_ACCURACY", "HARDROUTE_ROBUST_ACCURACY"]
    assert all(re.fullmatch("HARDROUTE(_[A-Z0-9]+)+", each) for each in said["properties"])


@pytest.mark.parametrize("which", ["certified", "below", "refused"])
def test_the_bill_of_materials_has_the_figures_with_their_intervals(reports: dict[str, Report], which: str) -> None:
    report = reports[which]
    bom = json.loads(ml_bom(report))
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    model = bom["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": report.bundle.digest}]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert [each["slice"] for each in metrics] == [
        "unattacked",
        "worst case, L-inf eps 1/255",
        "worst case, L-inf eps 2/255",
    ]
    for found, rate in zip(metrics, [report.clean.both, *(at.worst_case for at in report.eps)], strict=True):
        assert float(found["value"]) == pytest.approx(rate.share, abs=5e-5)
        ends = found["confidenceInterval"]
        assert float(ends["lowerBound"]) == pytest.approx(rate.low, abs=5e-5)
        assert float(ends["upperBound"]) == pytest.approx(rate.high, abs=5e-5)
    limits = model["modelCard"]["considerations"]["technicalLimitations"]
    assert any("not certified" in each for each in limits) is (which == "below")


def test_no_format_claims_compliance(reports: dict[str, Report]) -> None:
    for report in reports.values():
        for name, made in _made(report).items():
            assert not re.search(rb"(?i)\bcompl(y|ies|iant|iance)\b", made), name
