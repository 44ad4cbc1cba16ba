"""A certificate is there if and only if the audit passed in full, and says what it vouches for."""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from hardroute import Bundle, Engine
from hardroute.audit.policy import Policy
from hardroute.audit.policy_digest import definition, digest
from hardroute.audit.report.certificate import attach
from hardroute.runtime.bundle import Baseline
from hardroute.runtime.datasets import load_clips, open_set
from hardroute.runtime.errors import BundleError
from hardroute.runtime.watch import Watch
from tests.audit.test_cli import Audited
from tests.support import bundles
from tests.support.audit_bundles import lax_policy, reseal


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
    assert certificate["policy"] == {
        "digest": digest(policy),
        "content": policy.model_dump(mode="json"),
        "title": 'custom policy "lax"',
        "definition": definition(policy),
    }
    plan = (audited.out / "plan.json").read_bytes()
    assert certificate["plan_sha256"] == report["plan_sha256"] == hashlib.sha256(plan).hexdigest()
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
    assert ("no certificate: at most 5 clips" in audited.stdout) is (why == "limited")
    assert "\ncertificate:" not in audited.stdout and not (audited.out / "certificate.json").exists()
    assert (audited.out / "report.json").exists()


def test_bad_input_leaves_an_earlier_certificate_alone(audited: Audited) -> None:
    audited.run()
    audited.policy.write_text("schema_version = 1")
    assert audited.run() == 2 and (audited.out / "certificate.json").exists()


def test_its_baseline_is_what_the_deployed_runtime_answered(audited: Audited) -> None:
    assert audited.run("--attach") == 0, audited.stderr
    assert f"attached: {audited.bundle / 'certificate.json'}" in audited.stdout
    inside = (audited.bundle / "certificate.json").read_bytes()
    assert inside == (audited.out / "certificate.json").read_bytes()
    with Engine.load(audited.bundle, threads=1) as engine:
        certificate = engine.bundle.certificate()
        clips = load_clips(open_set(str(audited.data)).split("test"), engine.contract)
        answers = engine.predict_batch(clips.frames)
        assert certificate is not None and certificate.baseline.clips == 24
        assert np.array(certificate.baseline.margins) == pytest.approx(np.array(Baseline.of(answers).margins), abs=1e-5)
        assert 'custom policy "lax" passed on 24 clips' in certificate.headline
        watch = Watch.from_bundle(engine.bundle, false_alarm=1e-4)
        assert [alarm for answer in answers for alarm in watch.observe(answer)] == []


def test_a_refused_bundle_does_not_keep_an_earlier_one(audited: Audited) -> None:
    assert audited.run("--attach") == 0
    assert audited.run() == 0 and (audited.bundle / "certificate.json").exists()
    lax_policy(audited.policy, robust_accuracy=0.99)
    assert audited.run() == 1 and (audited.bundle / "certificate.json").exists()
    assert audited.run("--attach") == 1
    assert "the bundle has no certificate now" in audited.stdout
    assert Bundle.open(audited.bundle).certificate() is None


def test_attaching_is_refused_before_the_audit_where_it_could_not_be_done(audited: Audited) -> None:
    assert audited.run("--attach", "--limit", "5") == 2
    assert "--limit certifies nothing" in audited.stderr and not audited.out.exists()


def test_nothing_is_attached_to_a_bundle_that_changed_meanwhile(audited: Audited) -> None:
    assert audited.run() == 0
    bundle = Bundle.open(audited.bundle)
    reseal(audited.bundle, name="another")
    with pytest.raises(BundleError, match="changed while it was audited"):
        attach(bundle, audited.out / "certificate.json")
    with pytest.raises(BundleError, match="is of another bundle"):
        attach(Bundle.open(audited.bundle), audited.out / "certificate.json")
    assert not (audited.bundle / "certificate.json").exists()


def test_a_full_disk_leaves_the_bundle_as_it_was(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audited.run() == 0
    bundle, before = Bundle.open(audited.bundle), sorted(audited.bundle.iterdir())
    real = tempfile.mkstemp

    def full(prefix: str, dir: Path) -> tuple[int, str]:
        if prefix.startswith(".certificate.sha256"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(prefix=prefix, dir=dir)

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with pytest.raises(BundleError, match=r"certificate\.json cannot be put there .*\(No space left"):
        attach(bundle, audited.out / "certificate.json")
    assert sorted(audited.bundle.iterdir()) == before
    assert Bundle.open(audited.bundle).certificate() is None
