"""A report for continuous integration: JUnit XML for the list of tests, Markdown for the page of a job."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

from hardroute.audit.report.content import Report
from hardroute.audit.report.html import interval
from hardroute.runtime.files import printable

JUNIT: Final = "junit.xml"
SUMMARY: Final = "summary.md"
_SUITE: Final = "hardroute.audit"
_MARKDOWN: Final = re.compile(r"[\\`*_{}\[\]<>#|~&@!$]|:(?=//)")
_ADDRESS: Final = re.compile(r"\b(www)\.", re.IGNORECASE)


def junit(report: Report) -> bytes:
    """One test case for each check. One that failed says so in the check's sentence.

    Elements and attributes are those that readers of the format agree on; it has no one standard.
    """
    failed = sum(not check.passed for check in report.verdict.checks)
    counts = {"tests": str(len(report.verdict.checks)), "failures": str(failed), "errors": "0"}
    suites = ElementTree.Element("testsuites", {"name": _SUITE, **counts, "time": f"{report.seconds:.1f}"})
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        {
            "name": printable(f"{report.bundle.name}: {report.policy.called}"),
            **counts,
            "skipped": "0",
            "time": f"{report.seconds:.1f}",
            # Readers take the zone for granted, and some refuse one.
            "timestamp": report.created[:19],
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in {
        "bundle.sha256": report.bundle.digest,
        "policy": report.policy.called,
        "policy.sha256": report.policy.digest,
        "data": report.data.name,
        "data.sha256": report.data.digest,
        "plan.sha256": report.plan_sha256,
        "not_certified": "; ".join(report.not_certified),
    }.items():
        if value:
            ElementTree.SubElement(properties, "property", {"name": name, "value": printable(value)})
    for check in report.verdict.checks:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": _SUITE, "name": printable(check.name), "time": "0"}
        )
        sentence = printable(check.sentence)
        if check.passed:
            ElementTree.SubElement(case, "system-out").text = sentence
        else:
            failure = ElementTree.SubElement(case, "failure", {"message": sentence, "type": "check"})
            failure.text = f"{sentence}\nmeasured {_figure(check.measured)}, asked {check.wants} {check.bound:.3g}"
    ElementTree.indent(suites)
    written: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def summary(report: Report) -> str:
    """The verdict in a few lines, and the checks as a table. What is text stays text: it may not be Markdown's."""
    checks = report.verdict.checks
    failed = [check.name for check in checks if not check.passed]
    verdict = "passed" if report.verdict.passed else f"refused ({', '.join(failed)})"
    gate = report.policy.content.attacks.gate_eps
    certified = "; ".join(report.not_certified) or "written" if report.verdict.passed else "refused"
    lines = [
        f"### {_text(report.bundle.name)}: {_text(report.policy.called)} {_text(verdict)}",
        "",
        f"- clean accuracy {interval(report.clean.both)}, "
        f"worst case at eps {gate}/255 {interval(report.gate.worst_case)}; 95 % Wilson intervals",
        f"- {report.data.clips} clips of {_text(report.data.name)}, split {_text(report.data.split)}; "
        f"attacks: {_text(', '.join(attack.name for attack in report.attacks))}",
        f"- certificate: {_text(certified)}",
        f"- SHA-256 of bundle `{report.bundle.digest}`, of policy `{report.policy.digest}`",
        "",
        "| | check | measured | asked | what was found |",
        "|---|---|---:|---:|---|",
    ]
    for check in checks:
        mark = "passed" if check.passed else "**failed**"
        asked = f"{check.wants} {check.bound:.3g}"
        lines.append(
            f"| {mark} | {_text(check.name)} | {_figure(check.measured)} | {asked} | {_text(check.sentence)} |"
        )
    return "\n".join(lines) + "\n"


def _figure(measured: float | None) -> str:
    return "not finite" if measured is None else f"{measured:.3g}"


def _text(text: str) -> str:
    """As Markdown that shows the text itself: names come from manifests nobody vouches for."""
    return _ADDRESS.sub(r"\1\.", _MARKDOWN.sub(lambda found: "\\" + found.group(), printable(text)))
