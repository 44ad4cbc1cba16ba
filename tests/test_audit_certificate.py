"""A certificate is there if and only if the audit passed in full, and says what it vouches for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from audit.policy import Policy
from tests import bundles
from tests.audit_bundles import lax_policy
from tests.test_audit_cli import Audited


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audited:
    return Audited(tmp_path, monkeypatch, capsys)


def test_a_passed_audit_is_certified_beside_its_report(audited: Audited) -> None:
    before = {path: path.read_bytes() for path in audited.bundle.iterdir()}
    assert audited.run() == 0, audited.stderr
    assert f"certificate: {audited.out / 'certificate.json'}" in audited.stdout
    certificate, report = json.loads((audited.out / "certificate.json").read_text()), audited.report()
    assert certificate["bundle"]["digest"] == bundles.digest_of(audited.bundle)
    policy = Policy.load(audited.policy)
    assert certificate["policy"] == {"digest": policy.digest, "content": policy.model_dump(mode="json")}
    written = (audited.out / "report.json").read_bytes()
    assert certificate["report_sha256"] == hashlib.sha256(written).hexdigest()
    assert certificate["clean_accuracy"] == report["clean"]["both"]
    for at, point in zip(certificate["robust_accuracy"], report["eps"], strict=True):
        assert point["worst_case"].items() <= at.items() and at["n"] == 24 and at["low"] < at["share"]
    assert [at["decides"] for at in certificate["robust_accuracy"]] == [False, True]
    assert certificate["checks"] and all(check["passed"] for check in certificate["checks"])
    lines = "".join(f"{clip['sha256']} {clip['label']}\n" for clip in report["clips"])
    assert certificate["data"]["digest"] == hashlib.sha256(lines.encode()).hexdigest()
    # The bundle stays what its digest says.
    assert {path: path.read_bytes() for path in audited.bundle.iterdir()} == before


@pytest.mark.parametrize("why", ["refused", "limited"])
def test_a_stale_certificate_goes(audited: Audited, why: str) -> None:
    assert audited.run() == 0 and (audited.out / "certificate.json").exists()
    if why == "refused":
        lax_policy(audited.policy, robust_accuracy=0.99)
        assert audited.run() == 1
    else:
        assert audited.run("--limit", "5") == 0
    assert ("no certificate: --limit" in audited.stdout) is (why == "limited")
    assert "\ncertificate:" not in audited.stdout and not (audited.out / "certificate.json").exists()
    assert (audited.out / "report.json").exists()


def test_bad_input_leaves_an_earlier_certificate_alone(audited: Audited) -> None:
    audited.run()
    audited.policy.write_text("schema_version = 1")
    assert audited.run() == 2 and (audited.out / "certificate.json").exists()
