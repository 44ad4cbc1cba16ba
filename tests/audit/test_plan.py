"""A plan is fixed before the first attack; what changes after it, or asks for too little, is not certified."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardroute.audit import certify
from hardroute.audit.plan import NAME, SIGNATURE, Plan
from hardroute.audit.policy import Policy
from hardroute.audit.policy_digest import definition, digest
from hardroute.audit.report.folder import write
from hardroute.audit.result import Means
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.errors import HardrouteError
from tests.audit.test_cli import Audited
from tests.audit.test_clip_selection import clips_of
from tests.support import bundles
from tests.support.audit_bundles import labelled_set, lax_policy, reseal


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audited:
    return Audited(tmp_path, monkeypatch, capsys)


@pytest.fixture
def gated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audited:
    """With the floors as they are shipped."""
    return Audited(tmp_path, monkeypatch, capsys, floors=True)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    bundle = Bundle.open(bundles.make_bundle(tmp_path / "planned").root)
    return Plan.of(bundle, clips_of([1, 2], ["x", "y"]), Policy.load("standard"), Means(), data="mine")


def last_line(audited: Audited) -> str:
    return audited.stderr.strip().splitlines()[-1]


def test_it_is_written_whole_before_the_first_attack(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    real = certify.evaluate

    def watched(*args: Any, **settings: Any) -> Any:
        seen.append((audited.out / NAME).read_bytes())
        return real(*args, **settings)

    monkeypatch.setattr(certify, "evaluate", watched)
    assert audited.run() == 0, audited.stderr
    assert seen == [(audited.out / NAME).read_bytes()]
    said, report, policy = json.loads(seen[0]), audited.report(), Policy.load(audited.policy)
    assert said["bundle"]["digest"] == report["bundle"]["digest"] == bundles.digest_of(audited.bundle)
    assert said["data"]["digest"] == report["data"]["digest"] and said["data"]["clips"] == 24
    assert said["policy"]["digest"] == report["policy"]["digest"] == digest(policy)
    assert said["policy"]["definition"] == report["policy"]["definition"] == definition(policy)
    assert said["created"] <= report["created"]
    certificate = json.loads((audited.out / "certificate.json").read_bytes())
    assert certificate["plan_sha256"] == report["plan_sha256"] == hashlib.sha256(seen[0]).hexdigest()


def swap_a_clip(audited: Audited) -> None:
    shutil.copy(audited.data / "1.mp4", audited.data / "0.mp4")


def remove_a_clip(audited: Audited) -> None:
    (audited.data / "0.mp4").unlink()


def swap_the_bundle(audited: Audited) -> None:
    reseal(audited.bundle, name="another")


def weaken_the_policy(audited: Audited) -> None:
    lax_policy(audited.policy, clean_accuracy=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swap_a_clip, "0.mp4: changed while the bundle was audited on it; audit it again"),
        (remove_a_clip, "0.mp4: changed while the bundle was audited on it; audit it again"),
        (swap_the_bundle, "changed while it was audited, so nothing is certified; audit it again"),
        (weaken_the_policy, 'custom policy "lax": changed while the bundle was audited by it; audit it again'),
    ],
)
def test_what_changes_during_the_audit_is_refused(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, change: Callable[[Audited], None], said: str
) -> None:
    real = certify.replay

    def meanwhile(*args: Any, **settings: Any) -> Any:
        change(audited)
        return real(*args, **settings)

    monkeypatch.setattr(certify, "replay", meanwhile)
    assert audited.run() == 2
    assert last_line(audited).startswith("error: ") and said in last_line(audited)
    assert {path.name for path in audited.out.iterdir()} <= {NAME, ".work"}


def test_an_audit_that_goes_on_keeps_its_plan_and_another_does_not(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "report"
    earlier = plan.model_copy(update={"created": "2026-01-01T00:00:00+00:00"})
    earlier.write(out)
    assert plan.going_on(out) is plan  # nothing is left to go on with
    (out / ".work").mkdir()
    assert plan.going_on(out) == earlier
    other = plan.model_copy(update={"data": plan.data.model_copy(update={"digest": "0" * 64})})
    assert other.going_on(out) is other
    (out / NAME).write_text("{}")
    assert plan.going_on(out) is plan


def test_it_can_be_signed_and_no_signature_outlives_its_plan(plan: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path / "out", sign=lambda data: hashlib.sha256(data).digest())
    assert (tmp_path / "out" / SIGNATURE).read_bytes() == bytes.fromhex(plan.sha256)
    plan.write(tmp_path / "out")
    assert not (tmp_path / "out" / SIGNATURE).exists() and (tmp_path / "out" / NAME).read_bytes() == plan.to_bytes()


def test_a_folder_that_cannot_be_written_is_one_line(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(HardrouteError, match=r"plan\.json: cannot be written .*choose another folder"):
        plan.write(tmp_path / "out")


def test_a_report_takes_no_plan_of_another_audit(audited: Audited, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(audit: Any, out: Path, _: Plan, seconds: float) -> Any:
        with pytest.raises(ValueError, match="the plan is of another bundle, set or policy"):
            write(audit, out, plan, seconds)
        raise HardrouteError("as it should be")

    monkeypatch.setattr("hardroute.audit.report.write", other)
    assert audited.run() == 2 and "as it should be" in audited.stderr


def test_copies_of_a_clip_count_once(audited: Audited, caplog: pytest.LogCaptureFixture) -> None:
    with (audited.data / "manifest.csv").open("a", newline="") as file:
        for n, tail in enumerate([b"", b"\0\0\0\x08free"]):  # the same bytes; the same frames in other bytes
            label = audited_label(audited, "0.mp4")
            (audited.data / f"copy{n}.mp4").write_bytes((audited.data / "0.mp4").read_bytes() + tail)
            csv.writer(file).writerow([f"copy{n}.mp4", label, "test", f"copy{n}"])
    assert audited.run() == 0, audited.stderr
    assert "2 of 26 clips are copies of others; each clip counts once" in caplog.text
    assert "2 of 26 clips are copies of others; each clip counts once" in audited.stdout
    report = audited.report()
    assert report["data"]["clips"] == 24 and report["data"]["copies"] == 2
    assert report["clean"]["both"]["n"] == 24 and len(report["clips"]) == 24
    assert "2 more were copies of others and left out" in (audited.out / "report.html").read_text()


def audited_label(audited: Audited, file: str) -> str:
    with (audited.data / "manifest.csv").open(newline="") as rows:
        return next(row["label"] for row in csv.DictReader(rows) if row["file"] == file)


def test_a_weak_policy_that_calls_itself_standard_is_refused_at_once(gated: Audited) -> None:
    weak = lax_policy(gated.policy).read_text().replace('name = "lax"', 'name = "standard"')
    gated.policy.write_text(weak)
    assert gated.run() == 2 and not gated.out.exists()
    assert "name: 'standard' is kept for the policy of that name that is shipped" in last_line(gated)


def test_a_custom_policy_is_called_one_and_below_the_floors_certifies_nothing(gated: Audited) -> None:
    assert gated.run() == 0, gated.stderr
    assert 'PASSED custom policy "lax"' in gated.stdout
    page, report = (gated.out / "report.html").read_text(), gated.report()
    assert "custom policy &#34;lax&#34;" in page and "No certificate:" in page
    assert report["policy"]["title"] == 'custom policy "lax"'
    for short in (
        "24 distinct clips were audited; at least 100 are needed",
        "suite 'quick' leaves out pgd-hard, pgd-margin, route-then-attack",
        "attacks take 3 steps; at least 10 are needed",
        "the policy asks for robust_accuracy of 0; it must be above chance, 0.333 with 3 classes",
    ):
        assert f"no certificate: {short}" in gated.stdout
        assert any(each.startswith(short) for each in report["not_certified"])
    assert not (gated.out / "certificate.json").exists()


def test_what_certifies_nothing_is_not_attached(gated: Audited) -> None:
    assert gated.run("--attach") == 2
    assert "--attach: this audit certifies nothing: 24 distinct clips" in last_line(gated)
    assert not gated.out.exists()


@pytest.mark.slow
def test_above_the_floors_a_pass_is_certified(gated: Audited, tmp_path: Path) -> None:
    gated.data = labelled_set(tmp_path / "many", gated.model, clips=330)
    text = lax_policy(
        gated.policy, clean_accuracy=0.34, robust_accuracy=0.34, min_agreement=0.9, max_dead_gradients=0.1
    ).read_text()
    for before, after in (
        ('"quick"', '"standard"'),
        ("clips = 100", "clips = 330"),
        ("steps = 3", "steps = 10"),
        ("eps = [1, 2]", "eps = [1]"),
        ("gate_eps = 2", "gate_eps = 1"),
    ):
        assert before in text
        text = text.replace(before, after)
    gated.policy.write_text(text)
    gated.run()
    hold = {clip["file"] for clip in gated.report()["clips"] if clip["holds"]["1"]}
    rows = (gated.data / "manifest.csv").read_text().splitlines(keepends=True)
    (gated.data / "manifest.csv").write_text(
        "".join(row for row in rows if ",test," not in row or row.split(",")[0] in hold)
    )
    assert gated.run("--attach") == 0, gated.stdout + gated.stderr
    found = Bundle.open(gated.bundle).certificate()
    assert found is not None and found.headline.startswith(f'custom policy "lax" passed on {len(hold)} clips of ')
    assert gated.report()["not_certified"] == []
