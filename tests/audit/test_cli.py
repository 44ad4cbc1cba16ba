"""`python -m audit` from end to end: exit codes, reports, and nothing written on bad input."""

from __future__ import annotations

import hashlib
import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardroute import Engine
from hardroute.audit.console import Show
from hardroute.audit.execution.device import open_device
from hardroute.audit.floors import FLOORS
from hardroute.audit.policy import Policy
from hardroute.audit.policy_digest import digest
from hardroute.cli import load
from hardroute.runtime.bundle import TRAINING_CLIPS, TrainingClips
from hardroute.runtime.bundle.bundle import Bundle
from hardroute.runtime.cli import main
from hardroute.runtime.clips import decode
from hardroute.runtime.errors import BackendError, BundleError
from tests.audit.report.test_html import visible_text
from tests.support import bundles
from tests.support.audit_bundles import bundle_with_twin, labelled_set, lax_policy, reseal


class Audited:
    """A folder with a bundle, a set and a policy; `run` audits and keeps what was printed.

    `floors`: as shipped; else the first two, so that a handful of clips and a policy that asks for nothing certify.
    """

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        floors: bool = False,
        **fields: Any,
    ) -> None:
        if not floors:
            monkeypatch.setattr("hardroute.audit.floors.FLOORS", FLOORS[:2])
        self.bundle, self.data, self.out = folder / "bundle", folder / "set", folder / "report"
        self.policy = lax_policy(folder / "policy.toml")
        self.monkeypatch, self._capsys = monkeypatch, capsys
        self.model = bundle_with_twin(self.bundle, monkeypatch, **fields)
        labelled_set(self.data, self.model)

    def run(self, *more: str) -> int:
        arguments = [
            str(self.bundle),
            "--data",
            str(self.data),
            "--policy",
            str(self.policy),
            "--out",
            str(self.out),
        ]
        self.monkeypatch.setattr(sys, "argv", ["audit", *arguments, *more])
        with pytest.raises(SystemExit) as exit_:
            main(load("audit"))
        printed = self._capsys.readouterr()
        self.stdout, self.stderr = printed.out, printed.err
        return exit_.value.code if isinstance(exit_.value.code, int) else 0

    def report(self) -> dict[str, Any]:
        return json.loads((self.out / "report.json").read_text())


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audited:
    return Audited(tmp_path, monkeypatch, capsys)


def test_a_policy_that_is_met_passes_and_reports_its_conditions(audited: Audited) -> None:
    assert audited.run() == 0, audited.stderr
    assert "PASSED" in audited.stdout and str(audited.out / "report.html") in audited.stdout.replace("\n", "")
    report = audited.report()
    assert report["schema_version"] == 1 and report["verdict"]["passed"]
    assert report["bundle"]["digest"] == bundles.digest_of(audited.bundle)
    assert report["policy"]["digest"] == digest(Policy.load(audited.policy))
    assert re.fullmatch("[0-9a-f]{64}", report["data"].pop("digest"))
    assert report["data"] == {"name": str(audited.data), "split": "test", "clips": 24, "limit": None, "copies": 0}
    assert [attack["name"] for attack in report["attacks"]] == ["fgsm", "pgd", "j-tlga"]
    assert [attack["steps"] for attack in report["attacks"]] == [1, 3, 3]
    assert [point["eps_255"] for point in report["eps"]] == [1, 2]
    assert report["clean"]["both"]["successes"] == 24 and report["agreement"]["lowest"]["share"] == 1
    assert sorted(entry.name for entry in audited.out.iterdir()) == [
        "adversarial.npz", "certificate.json", "junit.xml", "ml-bom.cdx.json", "plan.json", "report.html",
        "report.json", "summary.md", "svr.json", "test-result.json",
    ]  # fmt: skip


def test_every_figure_of_the_report_follows_from_its_clips(audited: Audited) -> None:
    audited.run("--thorough")
    report = audited.report()
    for point in report["eps"]:
        eps = f"{point['eps_255']:g}"
        assert sum(clip["holds"][eps] for clip in report["clips"]) == point["worst_case"]["successes"]
        for name, found in point["per_attack"].items():
            fell = sum(name in clip["felled_by"].get(eps, []) for clip in report["clips"])
            assert 24 - fell == found["accuracy"]["successes"] and found["tested"] == found["accuracy"]["n"] == 24
    assert 0 < report["eps"][-1]["worst_case"]["successes"] < 24
    assert np.isclose(sum(report["router"]["clean"]["load"]), 1)


def test_the_worst_clips_are_kept_for_replay_in_the_runtime(audited: Audited) -> None:
    audited.run()
    report = audited.report()
    with np.load(audited.out / "adversarial.npz", allow_pickle=False) as kept:
        frames, labels, made_by = kept["frames"], kept["labels"], kept["by"]
        assert kept["eps_255"] == 2 and list(kept["files"]) == [clip["file"] for clip in report["clips"]]
        assert set(made_by.tolist()) <= {-1, *range(len(kept["attacks"]))} and (made_by >= 0).any()
    with Engine.load(audited.bundle) as engine:
        right = [p.index for p in engine.predict_batch(frames)] == labels
    assert right.sum() == report["eps"][-1]["deployed_on_replay"]["successes"] < 24


def test_a_policy_that_is_not_met_refuses_with_the_reason(audited: Audited) -> None:
    lax_policy(audited.policy, robust_accuracy=0.99)
    assert audited.run() == 1
    assert "REFUSED" in audited.stdout and "robust accuracy" in audited.stdout
    assert [check["name"] for check in audited.report()["verdict"]["checks"] if not check["passed"]] == [
        "robust accuracy"
    ]


def test_weak_files_beside_a_strong_twin_are_refused(audited: Audited, tmp_path: Path) -> None:
    """All digests match and the probes are answered as stored; only replay can tell."""
    other = bundles.make_bundle(tmp_path / "other", seed=9)
    for name in ("expert_0.onnx", "expert_1.onnx", "expert_2.onnx", "probes.npz", "router.onnx"):
        (audited.bundle / name).write_bytes((other.root / name).read_bytes())
    reseal(audited.bundle)
    lax_policy(audited.policy, min_agreement=0.9)
    assert audited.run() == 1
    failed = [check["name"] for check in audited.report()["verdict"]["checks"] if not check["passed"]]
    assert failed == ["deployed = audited"]
    clean = audited.report()["clean"]
    assert clean["both"]["successes"] <= clean["deployed"]["successes"] < clean["audited"]["successes"] == 24


@pytest.mark.parametrize(
    ("device", "complaint"),
    [
        ("cuda", "sees no CUDA device"),
        ("cuda:1", "sees no CUDA"),
        ("nonsense", "no such device"),
        ("meta", "use cpu, cuda"),
    ],
)
def test_a_device_that_is_not_there_is_one_line_and_no_other_is_taken(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, device: str, complaint: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert audited.run("--device", device) == 2 and not audited.out.exists()
    assert re.search(f"error: device {device}: .*{complaint}", audited.stderr)


def test_a_gpu_of_its_own_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert str(open_device("cuda")) == "cuda:0" and str(open_device("cuda:1")) == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert str(open_device("cuda")) == "cuda:1" and str(open_device("cpu")) == "cpu"
    with pytest.raises(BackendError, match="no cuda:2, only cuda:0 to cuda:1"):
        open_device("cuda:2")


@pytest.mark.gpu
def test_an_audit_on_a_gpu_finds_what_one_on_the_cpu_finds(audited: Audited) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert audited.run() == 0, audited.stderr
    on_cpu = audited.report()
    assert audited.run("--device", "cuda") == 0, audited.stderr
    assert audited.report()["device"] == "cuda"
    for one, two in zip(on_cpu["eps"], audited.report()["eps"], strict=True):
        assert abs(one["worst_case"]["successes"] - two["worst_case"]["successes"]) <= 1


def test_the_backend_of_the_replay_is_that_asked_for(audited: Audited) -> None:
    assert audited.run("--backend", "nonsense") == 2 and not audited.out.exists()
    assert "unknown backend 'nonsense'" in audited.stderr
    assert audited.run("--backend", "cpu") == 0 and audited.report()["backend"] == "cpu"


def test_every_phase_shows_its_progress(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def phase(self: Show, name: str) -> Any:
        return lambda done, total, what="": seen.setdefault(name, []).append((done, total))

    monkeypatch.setattr(Show, "phase", phase)
    assert audited.run("--source", f"same={audited.bundle}") == 0, audited.stderr
    assert list(seen) == ["decoding clips", "attacks", "transfer", "replay", "checks"]
    for name, counts in seen.items():
        assert counts[-1][0] == counts[-1][1] > 0 and counts == sorted(counts), name
        assert len({total for _, total in counts}) == 1


def test_classes_are_matched_by_name(audited: Audited) -> None:
    """The bundle's order of classes is not the set's sorted one."""
    assert list(bundles.CLASSES) == sorted(bundles.CLASSES)
    turned = ["up", "left", "right"]
    reseal(audited.bundle, classes=turned)
    manifest = audited.data / "manifest.csv"
    new = dict(zip(bundles.CLASSES, turned, strict=True))
    manifest.write_text(re.sub("left|right|up", lambda old: new[old[0]], manifest.read_text()))
    assert audited.run() == 0, audited.stderr
    assert audited.report()["clean"]["both"]["successes"] == 24


def test_limit_audits_fewer_clips_and_says_so(audited: Audited) -> None:
    assert audited.run("--limit", "5") == 0, audited.stderr
    assert audited.report()["data"]["clips"] == audited.report()["data"]["limit"] == 5
    assert "limited to 5" in visible_text(audited.out / "report.html")


def test_the_same_audit_twice_finds_the_same(audited: Audited) -> None:
    audited.run()
    first = audited.report()
    audited.run()
    second = audited.report()
    for report in (first, second):
        del report["created"], report["seconds"], report["plan_sha256"]  # which has its time
    assert first == second


def no_twin(audited: Audited) -> None:
    reseal(audited.bundle, twin=None)


def changed_byte(audited: Audited) -> None:
    path = audited.bundle / "expert_1.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def foreign_class(audited: Audited) -> None:
    bundles.write_video(audited.data / "more.mp4")
    manifest = audited.data / "manifest.csv"
    manifest.write_text(manifest.read_text() + "more.mp4,diagonal,train,more\n")


def missing_class(audited: Audited) -> None:
    manifest = audited.data / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",up,", ",left,"))


def no_test_split(audited: Audited) -> None:
    manifest = audited.data / "manifest.csv"
    manifest.write_text(manifest.read_text().replace(",test,", ",val,"))


def broken_video(audited: Audited) -> None:
    (audited.data / "3.mp4").write_text("not a video")


def no_bundle(audited: Audited) -> None:
    audited.bundle = audited.bundle / "none"


def no_set(audited: Audited) -> None:
    audited.data = audited.data / "none"


def bad_policy(audited: Audited) -> None:
    audited.policy.write_text("schema_version = 1")


def out_is_a_file(audited: Audited) -> None:
    audited.out = audited.policy


def out_below_a_file(audited: Audited) -> None:
    audited.out = audited.policy / "report"


def out_of_no_name(audited: Audited) -> None:
    audited.out = audited.policy.parent / ("x" * 300)


def out_is_not_ours(audited: Audited) -> None:
    # Root may write anywhere, so the answer is planted.
    audited.out = audited.policy.parent / "report"
    audited.monkeypatch.setattr("os.access", lambda path, mode: False)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (no_twin, "no PyTorch twin"),
        (changed_byte, "expert_1.onnx was changed"),
        (foreign_class, "only in the set: diagonal"),
        (missing_class, "only in the bundle: up"),
        (no_test_split, "'test'.*train, val"),
        (broken_video, "3.mp4"),
        (no_bundle, "no such bundle"),
        (no_set, "no such folder"),
        (bad_policy, "policy.toml: name: missing"),
        (out_is_a_file, "policy.toml: not a folder; choose another --out"),
        (out_below_a_file, "policy.toml: not a folder; choose another --out"),
        (out_of_no_name, "name too long; choose another --out"),
        (out_is_not_ours, "no permission to write there; choose another --out"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(audited: Audited, spoil: Any, complaint: str) -> None:
    spoil(audited)
    before = sorted(audited.policy.parent.rglob("*"))
    assert audited.run() == 2
    lines = audited.stderr.strip().splitlines()
    assert lines[-1].startswith("error: ") and re.search(complaint, lines[-1]), audited.stderr
    assert sum(line.startswith("error") for line in lines) == 1 and "Traceback" not in audited.stderr
    assert sorted(audited.policy.parent.rglob("*")) == before


def bug(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("planted\nerror: forged")


def accepted_and_refused(*_: Any, **__: Any) -> Any:
    raise BundleError("planted: what was accepted is refused later")


@pytest.mark.parametrize("where", ["evaluate", "replay", "measure", "gflops"])
@pytest.mark.parametrize("crash", [bug, accepted_and_refused])
def test_a_crash_is_not_a_verdict(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, where: str, crash: Callable[..., Any]
) -> None:
    monkeypatch.setattr(f"hardroute.audit.certify.{where}", crash)
    assert audited.run() == 3, audited.stderr
    last = audited.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and "REFUSED" not in audited.stdout
    assert not (audited.out / "report.json").exists()
    # A traceback is for a bug, and a line is enough for the rest.
    assert ("Traceback" in audited.stderr) is (crash is bug)
    if crash is bug:
        assert last == "error: the audit broke, so nothing was judged (ZeroDivisionError: planted error: forged)"


def test_a_crash_before_the_audit_is_not_a_verdict_either(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardroute.audit.cli.load_clips", bug)
    assert audited.run() == 3 and "Traceback" in audited.stderr


def test_the_module_runs_and_importing_audit_is_light() -> None:
    run = subprocess.run([sys.executable, "-m", "audit", "none", "--data", "none"], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith("error: none: no such bundle folder")
    light = "import sys, audit, hardroute.audit.policy; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", light], check=True)


def test_names_from_a_manifest_are_text_on_the_page(audited: Audited) -> None:
    evil = "<script>alert(1)</script>"
    reseal(audited.bundle, name=evil, classes=[evil, "b & b", "<img src=x>"])
    manifest = (audited.data / "manifest.csv").read_text()
    for old, new in zip(bundles.CLASSES, [evil, "b & b", "<img src=x>"], strict=True):
        manifest = manifest.replace(f",{old},", f",{new},")
    (audited.data / "manifest.csv").write_text(manifest)
    assert audited.run() == 0, audited.stderr
    page = (audited.out / "report.html").read_text()
    assert evil not in page and "<img src=x>" not in page and html.escape(evil) in page
    assert Bundle.open(audited.bundle).manifest.name == evil


@pytest.mark.parametrize("leak", ["same file", "renamed", "in another container", "none"])
def test_clips_that_a_bundle_was_trained_on_certify_nothing(audited: Audited, leak: str, tmp_path: Path) -> None:
    contract = Bundle.open(audited.bundle).manifest.contract
    first = audited.data / "0.mp4"
    if leak == "renamed":
        first = first.rename(audited.data / "another.mp4")
        text = (audited.data / "manifest.csv").read_text().replace("0.mp4,", "another.mp4,", 1)
        (audited.data / "manifest.csv").write_text(text)
    clip = decode(first, contract)
    frames = hashlib.sha256(clip.frames.tobytes()).hexdigest()
    other = "0" * 64
    pair = {
        "same file": (clip.sha256, frames),
        "renamed": (clip.sha256, other),
        "in another container": (other, frames),
        "none": (other, other),
    }[leak]
    (audited.bundle / TRAINING_CLIPS).write_bytes(TrainingClips.to_bytes([pair]))
    reseal(audited.bundle, training_clips=TRAINING_CLIPS)
    if leak == "none":
        assert audited.run() == 0, audited.stderr
        return
    assert audited.run() == 2
    assert audited.stderr.strip().count("\n") == 0
    assert f"was trained on 1 of these 24 clips ({first.name})" in audited.stderr
    assert not audited.out.exists()
