"""A certificate in a bundle is read without trust, and only as that bundle's own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardroute import Bundle, Engine
from hardroute.runtime.bundle import Certificate
from hardroute.runtime.bundle.sealed_files import write_sealed
from hardroute.runtime.errors import BundleError
from hardroute.runtime.watch import Watch
from tests.support import bundles


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    root = bundles.make_bundle(tmp_path / "bundle").root
    bundles.certify(root)
    return root


def rewrite(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """What someone does who can write into the bundle: the seal fits."""
    content = json.loads((root / "certificate.json").read_text())
    change(content)
    write_sealed(root, "certificate.json", json.dumps(content).encode())


def refusal(root: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(root).certificate()
    return str(caught.value)


def test_a_bundle_without_one_is_served_but_not_watched(tmp_path: Path) -> None:
    bundle = Bundle.open(bundles.make_bundle(tmp_path / "bundle").root)
    assert bundle.certificate() is None
    with pytest.raises(BundleError, match=r"no certificate\.json in it.*attach"):
        Watch.from_bundle(bundle)


def test_the_clips_that_were_certified_raise_no_alarm(certified: Path) -> None:
    with Engine.load(certified, threads=1) as engine:
        found = engine.bundle.certificate()
        assert found is not None and found.baseline.clips == 64
        watch = Watch.from_bundle(engine.bundle, false_alarm=1e-4, every=1, seed=0)
        assert watch.baseline == found.baseline
        for answer in engine.predict_batch(bundles.random_frames(64)):
            assert watch.observe(answer) == ()


def test_it_is_that_of_another_bundle(certified: Path, tmp_path: Path) -> None:
    other = bundles.make_bundle(tmp_path / "other", seed=1).root
    write_sealed(other, "certificate.json", (certified / "certificate.json").read_bytes())
    assert "is of another bundle" in refusal(other) and "attach its certificate" in refusal(other)


def test_what_a_later_version_adds_is_not_looked_at(certified: Path) -> None:
    rewrite(certified, lambda c: (c.update(later=[None]), c["data"].update(later=1)))
    assert Bundle.open(certified).certificate() is not None


def test_the_shipped_certificate_is_read_and_written_without_loss() -> None:
    bundle = Bundle.open("motion")
    found = bundle.certificate()
    assert found is not None and found.data.clips == 320 and len(found.checks) == 15
    assert json.loads(found.to_bytes()) == json.loads((bundle.root / "certificate.json").read_bytes())
    assert Certificate.parse(found.to_bytes(), bundle.digest, bundle.manifest) == found


def test_one_goes_into_its_bundle_and_out_again(tmp_path: Path) -> None:
    bundle = Bundle.open(bundles.make_bundle(tmp_path / "bundle").root)
    before = {path: path.read_bytes() for path in bundle.root.iterdir()}
    bundles.certify(bundle.root)
    assert bundle.certificate() is None  # what was opened had none
    assert Bundle.open(bundle.root).certificate() is not None
    bundle.detach()
    bundle.detach()  # no second time is needed, and none hurts
    assert {path: path.read_bytes() for path in bundle.root.iterdir()} == before
    with pytest.raises(BundleError, match=r"certificate\.json: "):
        bundle.attach(b"{}")
    bundles.edit_manifest(bundle.root, name="another")
    with pytest.raises(BundleError, match="changed while it was audited"):
        bundle.detach()


BASELINE = "baseline"


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda c: c.update(schema_version=1), "schema version 1, this runtime reads 2"),
        (lambda c: c.update(schema_version="x" * 99), "schema version 'xxx"),
        (lambda c: c.pop("schema_version"), "schema_version"),
        (lambda c: c.pop(BASELINE), "baseline: Field required"),
        (lambda c: c["bundle"].update(digest="0" * 63), "bundle.digest"),
        (lambda c: c["data"].update(name="a\x1b[2Jb"), "control characters"),
        (lambda c: c["policy"]["content"].update(name="n" * 5000), "policy.content.name"),
        (lambda c: c["policy"].update(definition={"eps": [255]}), "digest is not that of the definition"),
        (lambda c: c["policy"].update(title="a\x1b[2Jb"), "control characters"),
        (lambda c: c.update(plan_sha256="0"), "plan_sha256"),
        (lambda c: c["clean_accuracy"].update(share=1.01), "clean_accuracy.share"),
        (lambda c: c.update(robust_accuracy=[{}] * 257), "robust_accuracy"),
        (lambda c: c.update(threat_model={"norm": 1}), "threat_model.norm"),
        (lambda c: c.update(threat_model={str(n): "" for n in range(257)}), "threat_model"),
        (lambda c: c.update(checks="all"), "checks"),
        (lambda c: c.update(checks=[{"name": "a"}]), "checks.0.measured"),
        (lambda c: c.update(attacks=["\x1b[2J"]), "control characters"),
        (lambda c: c.update(report_sha256="0"), "report_sha256"),
        (lambda c: c.pop("sources"), "sources: Field required"),
        (lambda c: c[BASELINE].update(experts=[64]), "1 experts, the bundle has 3"),
        (lambda c: c[BASELINE].update(labels=[60, 4]), "2 labels, the bundle has 3"),
        (lambda c: c[BASELINE].update(labels=[60, 3, 0]), "labels: they count 63 clips, experts 64"),
        (lambda c: c[BASELINE].update(experts=[-1, 60, 5]), "baseline.experts.0"),
        (lambda c: c[BASELINE].update(experts=[10**12, 0, 0]), "baseline.experts.0"),
        (lambda c: c[BASELINE].update(experts=[True, 60, 3]), "baseline.experts.0"),
        (lambda c: c[BASELINE].update(experts=[0, 0, 0], labels=[0, 0, 0]), "64 values for 0 clips"),
        (lambda c: c[BASELINE].update(margins=[0.5] * 63), "margins: 63 values for 64 clips"),
        (lambda c: c[BASELINE].update(margins=[0.5] * 63 + [0.4]), "margins: not in ascending order"),
        (lambda c: c[BASELINE].update(margins=[0.5] * 63 + [1.5]), "baseline.margins.63"),
        (lambda c: c[BASELINE].update(log_odds=[0.5] * 10_000), "baseline.log_odds"),
        (lambda c: c[BASELINE].update(log_odds=[float("nan")] * 64), "NaN is not finite"),
        (lambda c: c[BASELINE].update(log_odds=[0.5] * 63 + [float("inf")]), "Infinity is not finite"),
        (lambda c: c[BASELINE].update(log_odds=["0.5"] * 64), "baseline.log_odds.0"),
        (lambda c: c[BASELINE].update(extra=1), "baseline.extra"),
    ],
)  # fmt: skip
def test_a_hostile_one_is_refused(certified: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    rewrite(certified, change)
    found = refusal(certified)
    assert says in found and "certificate.json" in found and len(found) < 500


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 2}'])
def test_what_is_no_certificate_is_refused(certified: Path, data: bytes) -> None:
    write_sealed(certified, "certificate.json", data)
    assert "certificate.json: " in refusal(certified)


def test_one_swapped_for_a_link_while_the_bundle_is_served(certified: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(certified)
    (certified / "certificate.json").rename(tmp_path / "elsewhere.json")
    (certified / "certificate.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="symbolic link"):
        bundle.certificate()


def info(root: Path) -> str:
    command = [sys.executable, "-m", "hardroute", "info", str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_info_says_whether_a_valid_one_is_there(certified: Path) -> None:
    assert "certificate policy called 'quick' passed on 64 clips of random (2026-01-01): clean 100.0%" in info(
        certified
    )
    rewrite(certified, lambda c: c["bundle"].update(digest="0" * 64))
    assert "certificate NOT VALID: " in info(certified) and "another bundle" in info(certified)
    for name in ("certificate.json", "certificate.sha256"):
        (certified / name).unlink()
    assert "certificate none" in info(certified)


def test_predict_withholds_below_a_margin(certified: Path, tmp_path: Path) -> None:
    video = bundles.write_video(tmp_path / "a.mp4")
    command = [sys.executable, "-m", "hardroute", "predict", str(certified), str(video), "--threads", "1"]
    done = subprocess.run([*command, "--abstain-below", "1"], capture_output=True, text=True, check=True)
    row = done.stdout.splitlines()[1].split()
    assert row[:2] == ["a.mp4", "-"]
    done = subprocess.run([*command, "--abstain-below", "0", "--json"], capture_output=True, text=True, check=True)
    assert "abstained" not in json.loads(done.stdout)
    done = subprocess.run([*command, "--abstain-below", "1", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["abstained"] is True and json.loads(done.stdout)["label"] in bundles.CLASSES


def test_a_stream_is_watched_if_the_bundle_is_certified(certified: Path, tmp_path: Path) -> None:
    """A video that is nothing like the noise that was certified, again and again."""
    video = bundles.write_video(tmp_path / "a.mp4")
    command = [sys.executable, "-m", "hardroute", "stream", str(certified), str(video), "--threads", "1"]
    command += ["--seconds", "0.5", "--loop", "--limit", "60", "--false-alarm", "1e-3"]
    heard = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert re.search(r"^alarm [a-z-]+: .*of the certified clips$", heard, re.MULTILINE)
    quiet = subprocess.run([*command, "--no-watch"], capture_output=True, text=True, check=True)
    assert "alarm" not in quiet.stderr
    for name in ("certificate.json", "certificate.sha256"):
        (certified / name).unlink()
    assert "alarm" not in subprocess.run(command, capture_output=True, text=True, check=True).stderr
    refused = subprocess.run([*command, "--watch"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "no certificate.json in it to compare" in refused.stderr
