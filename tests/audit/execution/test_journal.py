"""A killed audit goes on where it was, and never with another audit's results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardroute import evaluate
from hardroute.audit.evaluation.attack_batch import BatchResult
from hardroute.audit.evaluation.ledger import Ledger
from hardroute.audit.execution import journal
from hardroute.audit.execution.journal import Journal, key_of
from hardroute.runtime.errors import HardrouteError
from tests.support import bundles
from tests.support.audit_bundles import bundle_with_twin, labelled_set, lax_policy
from tests.support.audit_models import answers, eight_bit_clips, mixture
from tests.support.paths import ROOT

# The command line with the linear twin of tests/audit_bundles.py, and slow enough to be killed between results.
SLOW = """
import sys, time
import hardroute.audit.certify, hardroute.audit.execution.journal, hardroute.models
from hardroute.cli import load
from hardroute.runtime.cli import main
from tests.support import bundles
from tests.support.audit_bundles import twin_of
from pathlib import Path

tiny = bundles.make_bundle(Path(sys.argv.pop(1)))
hardroute.audit.bundles.load_twin = lambda bundle: twin_of(tiny)
journal, ledger = hardroute.audit.execution.journal, hardroute.audit.evaluation.ledger
pause, keep, attack = float(sys.argv.pop(1)), journal.Journal.keep, ledger.Ledger.attack

def slowly(*args):
    keep(*args)
    time.sleep(pause)

def said(*args):
    print("attacked", file=sys.stderr)
    return attack(*args)

hardroute.audit.execution.journal.Journal.keep, hardroute.audit.evaluation.ledger.Ledger.attack = slowly, said
# Code that somebody edits while this test runs would rightly start the audit afresh.
hardroute.audit.execution.journal.ROOT = Path("no sources here")
main(load("audit"))
"""


def result(clips: int = 3, seed: int = 0) -> BatchResult:
    rng = np.random.default_rng(seed)
    whole, real = rng.integers(0, 5, clips), rng.normal(size=clips)
    wide = rng.normal(size=(clips, 4)).astype(np.float32)
    frames = rng.integers(0, 256, (clips - 1, 2, 3, 3, 3), np.uint8)
    better = np.arange(clips) > 0
    return BatchResult(whole, whole, wide, wide, real, whole, whole, real, better, frames, rng.integers(0, 9, 4))


def same(one: BatchResult, other: BatchResult) -> bool:
    return all(
        np.array_equal(value, other.__dict__[name]) and value.dtype == other.__dict__[name].dtype
        for name, value in one.__dict__.items()
    )


def test_a_result_is_found_as_it_was_kept_and_only_for_its_clips(tmp_path: Path) -> None:
    book, some = Journal(tmp_path, "k"), np.array([1, 4, 5])
    assert book.find("pgd", 0.1, some, BatchResult) is None and not any(tmp_path.iterdir())
    book.keep("pgd", 0.1, some, result())
    found = book.find("pgd", 0.1, some, BatchResult)
    assert found is not None and same(found, result())
    for attack, eps, clips in (("fgsm", 0.1, some), ("pgd", 0.2, some), ("pgd", 0.1, some[:2])):
        assert book.find(attack, eps, clips, BatchResult) is None
    assert Journal(tmp_path, "other").find("pgd", 0.1, some, BatchResult) is None


@pytest.mark.parametrize("left", [0, 10, 0.5, -1])
def test_half_a_result_is_none(tmp_path: Path, left: float) -> None:
    book, some = Journal(tmp_path, "k"), np.array([1, 4, 5])
    book.keep("pgd", 0.1, some, result())
    (path,) = (tmp_path / "k").iterdir()
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if isinstance(left, float) else left])
    assert book.find("pgd", 0.1, some, BatchResult) is None


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HardrouteError, match="choose another folder"):
        Journal(tmp_path / "file", "k").keep("pgd", 0.1, np.array([1]), result())


def test_every_condition_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, labels = bundles.random_frames(2), np.array([0, 1])
    conditions = {"bundle": "b", "policy": "p", "thorough": False}
    keys = {key_of(conditions, frames, labels)}
    assert key_of(dict(reversed(conditions.items())), frames.copy(), labels) in keys
    other = frames.copy()
    other[-1, -1, -1, -1, -1] ^= 1
    keys |= {key_of(conditions, other, labels), key_of(conditions, frames, labels[::-1])}
    keys |= {key_of(conditions | {name: "x"}, frames, labels) for name in conditions}
    (tmp_path / "audit").mkdir()
    monkeypatch.setattr(journal, "ROOT", tmp_path)
    for code in ("x = 1", "x = 2"):
        (tmp_path / "audit" / "loop.py").write_text(code)
        keys.add(key_of(conditions, frames, labels))
    assert len(keys) == 8


@pytest.mark.parametrize("thorough", [False, True])
def test_an_evaluation_that_goes_on_is_the_one_that_ran_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thorough: bool
) -> None:
    torch.manual_seed(0)
    model, x = mixture(), eight_bit_clips(20)
    y, settings = answers(model, x), {"eps": (1 / 255, 3 / 255), "suite": "quick", "steps": 2, "batch_size": 6}
    whole = evaluate(model, x, y, **settings, thorough=thorough)  # type: ignore[arg-type]
    ran: list[Any] = []
    attack = Ledger.attack

    def dies(self: Ledger, *args: Any) -> BatchResult:
        if len(ran) == 5:
            raise KeyboardInterrupt
        ran.append(args)
        return attack(self, *args)

    monkeypatch.setattr(Ledger, "attack", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, x, y, **settings, thorough=thorough, journal=Journal(tmp_path, "k"))  # type: ignore[arg-type]

    def goes_on(self: Ledger, *args: Any) -> BatchResult:
        ran.append(args)
        return attack(self, *args)

    monkeypatch.setattr(Ledger, "attack", goes_on)
    resumed = evaluate(model, x, y, **settings, thorough=thorough, journal=Journal(tmp_path, "k"))  # type: ignore[arg-type]
    assert len(ran) == len(list((tmp_path / "k").iterdir())) > 5  # none twice
    plain, other = whole.__dict__, resumed.__dict__
    for name in ("clean", "robust", "per_attack", "tested", "route", "adversarial", "adversarial_by", "measures"):
        np.testing.assert_equal(_plain(plain[name]), _plain(other[name]), name)
    np.testing.assert_equal(_plain(plain["costs"]), _plain(other["costs"]))


def test_results_of_a_run_that_differed_in_the_last_digits_still_fit(tmp_path: Path) -> None:
    """An attack that does nothing has margins equal to the clean ones, until these come out a little larger."""
    torch.manual_seed(0)
    model, x = mixture(), eight_bit_clips(20)
    y, suite = answers(model, x), {"still": lambda model, x, y, **rest: x}
    evaluate(model, x, y, suite=suite, journal=Journal(tmp_path, "k"))
    with torch.no_grad():
        for weight in model.experts.parameters():
            weight.mul_(1 + 1e-5)
    again = evaluate(model, x, y, suite=suite, journal=Journal(tmp_path, "k"))
    assert (again.adversarial_by[8 / 255] == -1).all()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return _plain(vars(value)) if hasattr(value, "__dataclass_fields__") else value


def report_of(out: Path) -> dict[str, Any]:
    report = json.loads((out / "report.json").read_text())
    del report["created"], report["seconds"], report["plan_sha256"]  # which has its time
    return report


@pytest.mark.slow
def test_a_killed_audit_started_again_gives_the_same_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bundle_with_twin(tmp_path / "bundle", monkeypatch)
    data = labelled_set(tmp_path / "set", model, clips=12)
    policy = lax_policy(tmp_path / "policy.toml")
    number = iter(range(9))

    def start(out: Path, pause: float) -> subprocess.Popen[str]:
        tiny = tmp_path / f"tiny{next(number)}"
        where = ["--data", data, "--policy", policy, "--out", out, "--thorough"]
        arguments = [sys.executable, "-c", SLOW, tiny, str(pause), tmp_path / "bundle", *where]
        return subprocess.Popen([str(a) for a in arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True)

    def attacked(process: subprocess.Popen[str]) -> int:
        _, said = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), said
        return said.count("attacked")

    through = attacked(start(tmp_path / "through", 0))
    assert through == 6  # three attacks at two eps
    killed, work = start(tmp_path / "killed", 60), tmp_path / "killed" / ".work"
    for _ in range(1200):
        if any(work.rglob("*.npz")):
            break
        time.sleep(0.05)
    os.kill(killed.pid, signal.SIGKILL)
    assert attacked(killed) == 1 and not (tmp_path / "killed" / "report.json").exists()
    # Another policy starts from nothing; it finishes, so the killed audit's folder is kept aside for it.
    other = tmp_path / "other"
    work.rename(tmp_path / "aside")
    other.mkdir()
    (tmp_path / "aside").rename(other / ".work")
    kept = {path.relative_to(other): path.read_bytes() for path in other.rglob("*.npz")}
    lax_policy(policy, clean_accuracy=0.01)
    assert attacked(start(other, 0)) == through
    lax_policy(policy)
    for path, data_ in kept.items():
        (tmp_path / "killed" / path).parent.mkdir(parents=True)
        (tmp_path / "killed" / path).write_bytes(data_)
    assert attacked(start(tmp_path / "killed", 0)) == through - 1
    assert report_of(tmp_path / "killed") == report_of(tmp_path / "through")
    assert not (tmp_path / "killed" / ".work").exists()
