"""What an audit found, in formats that others read: in-toto statements, and a bill of materials of the model.

They are not signed: whoever can write the folder can write them. They are evidence towards what a reader has to show,
and say of no rule that it is complied with.
"""

from __future__ import annotations

import json
import re
import uuid
from typing import Any, Final

from hardroute.audit.report.content import Report
from hardroute.audit.report.figures import Rate
from hardroute.runtime.files import printable

TEST_RESULT: Final = "test-result.json"
SVR: Final = "svr.json"
ML_BOM: Final = "ml-bom.cdx.json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
TEST_RESULT_TYPE: Final = "https://in-toto.io/attestation/test-result/v0.1"
SVR_TYPE: Final = "https://in-toto.io/attestation/svr/v0.1"
FLOORS: Final = "floors of certification"


def test_result(report: Report) -> bytes:
    """An in-toto statement of type test-result v0.1 about manifest.json: one test for each check.

    An audit that passed but certifies nothing is WARNED, so that whoever asks for PASSED asks for a certificate.
    """
    checks = report.verdict.checks
    warned = [FLOORS] if report.verdict.passed and report.not_certified else []
    return _statement(
        report,
        TEST_RESULT_TYPE,
        {
            "result": ("WARNED" if warned else "PASSED") if report.verdict.passed else "FAILED",
            "configuration": _configuration(report),
            "passedTests": [check.name for check in checks if check.passed],
            "warnedTests": warned,
            "failedTests": [check.name for check in checks if not check.passed],
        },
    )


def svr(report: Report) -> bytes:
    """A simple verification result v0.1 about manifest.json, of an audit that is certified."""
    return _statement(
        report,
        SVR_TYPE,
        {
            "verifier": {
                "id": _tool(report),
                "policy": {"uri": f"urn:sha256:{report.policy.digest}", "digest": {"sha256": report.policy.digest}},
            },
            "timeCreated": _time(report),
            "properties": ["HARDROUTE_CERTIFIED", *(_property(check.name) for check in report.verdict.checks)],
        },
    )


def ml_bom(report: Report) -> bytes:
    """A CycloneDX 1.6 bill of materials: the model with its card, an accuracy with its interval for each eps."""
    contract = report.bundle.contract
    experts = ", ".join(sorted({f"{each.kind} of width {each.width}" for each in report.bundle.experts}))
    bom: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{report.bundle.digest} {report.created}')}",
        "version": 1,
        "metadata": {
            "timestamp": _time(report),
            "tools": {"components": [_drop_none(type="application", name="hardroute", version=_version(report))]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": "model",
                "name": report.bundle.name,
                "version": report.bundle.digest[:12],
                "description": "hardroute bundle; the digest is of its manifest.json, which holds those of all files",
                "hashes": [{"alg": "SHA-256", "content": report.bundle.digest}],
                "modelCard": {
                    "modelParameters": {
                        "approach": {"type": "supervised"},
                        "task": "video classification",
                        "architectureFamily": "mixture of experts with hard routing",
                        "modelArchitecture": f"{len(report.bundle.experts)} experts: {experts}",
                        "datasets": [_dataset(report)],
                        "inputs": [{"format": f"RGB clip, {contract.frames} x {contract.height} x {contract.width}"}],
                        "outputs": [{"format": f"one of {len(report.bundle.classes)} classes"}],
                    },
                    "quantitativeAnalysis": {
                        "performanceMetrics": [
                            _metric("accuracy", report.clean.both, "unattacked"),
                            *(
                                _metric("accuracy", at.worst_case, f"worst case, L-inf eps {at.eps_255:g}/255")
                                for at in report.eps
                            ),
                        ]
                    },
                    "considerations": {"technicalLimitations": _limitations(report)},
                },
                "properties": [
                    {"name": f"hardroute:{name}", "value": value} for name, value in _properties(report).items()
                ],
            },
        },
    }
    return _json(bom)


def _statement(report: Report, kind: str, predicate: dict[str, Any]) -> bytes:
    subject = {"name": "manifest.json", "digest": {"sha256": report.bundle.digest}}
    return _json({"_type": STATEMENT, "subject": [subject], "predicateType": kind, "predicate": predicate})


def _configuration(report: Report) -> list[dict[str, Any]]:
    """What was fixed beforehand, as resource descriptors."""
    found = {"policy": report.policy.digest, "clips": report.data.digest, "plan.json": report.plan_sha256}
    return [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in found.items() if sha256 is not None]


def _dataset(report: Report) -> dict[str, Any]:
    said = f"audited on {report.data.clips} clips of split {report.data.split}"
    if report.data.digest is not None:
        said += f"; SHA-256 over the digest and the class of each: {report.data.digest}"
    return {"type": "dataset", "name": report.data.name, "description": said}


def _metric(kind: str, found: Rate, part: str) -> dict[str, Any]:
    ends = {"lowerBound": f"{found.low:.4f}", "upperBound": f"{found.high:.4f}"}
    value = "unknown" if found.share is None else f"{found.share:.4f}"
    return {"type": kind, "value": value, "slice": part, "confidenceInterval": ends}


def _limitations(report: Report) -> list[str]:
    said = [f"{name}: {text}" for name, text in report.threat_model.items()]
    said.append("intervals are 95 % Wilson intervals over clips; attacks bound the worst case from above only")
    said += [f"not certified: {why}" for why in report.not_certified]
    return said


def _properties(report: Report) -> dict[str, str]:
    found = {
        "verdict": "passed" if report.verdict.passed else "refused",
        "policy": report.policy.called,
        "policy:sha256": report.policy.digest,
        "attacks": ", ".join(attack.name for attack in report.attacks),
    }
    return found | ({"plan:sha256": report.plan_sha256} if report.plan_sha256 else {})


def _property(name: str) -> str:
    return "HARDROUTE_" + re.sub("[^A-Z0-9]+", "_", name.upper()).strip("_")


def _version(report: Report) -> str | None:
    return report.versions.get("hardroute")


def _tool(report: Report) -> str:
    found = _version(report)
    return "pkg:generic/hardroute" + (f"@{found}" if found else "")


def _time(report: Report) -> str:
    # Both formats have UTC as Z.
    return report.created.replace("+00:00", "Z")


def _drop_none(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(_plain(content), indent=2, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    """The same with text that any reader takes: names come from manifests nobody vouches for."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return printable(value) if isinstance(value, str) else value
