"""The folder of a report is as it was, or whole; and a certificate never lies beside a report that is not its own."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardroute.audit.attacks import SUITES
from tests.audit.test_cli import Audited


@pytest.fixture
def audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Audited:
    return Audited(tmp_path, monkeypatch, capsys)


@pytest.fixture(autouse=True)
def one_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "one", ("fgsm",))


def contents(folder: Path) -> dict[str, bytes]:
    """Of what the report consists of; the plan is of the audit that was begun last."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "plan.json"}


def test_a_disk_that_is_full_leaves_the_old_report_and_no_certificate(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audited.run() == 0
    before = contents(audited.out)

    def full(folder: Path, files: dict[str, bytes]) -> None:
        assert not (folder / "certificate.json").exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("hardroute.audit.report.folder.write_together", full)
    assert audited.run() == 2
    assert "the report cannot be written (No space left on device)" in audited.stderr
    del before["certificate.json"], before["svr.json"]
    assert contents(audited.out) == before
    # What was found is kept for the next try.
    assert any((audited.out / ".work").rglob("*.npz"))


def test_a_page_that_fails_leaves_no_json_alone(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> str:
        raise ArithmeticError("planted in the page")

    monkeypatch.setattr("hardroute.audit.report.folder.render", fail)
    assert audited.run() == 3 and "planted in the page" in audited.stderr
    assert contents(audited.out) == {}


def test_every_clip_of_another_model_names_its_attack(audited: Audited) -> None:
    """FGSM alone, and PGD on the same model under another name: clips that only the second fells are the source's."""
    text = audited.policy.read_text().replace('"quick"', '"one"')
    audited.policy.write_text(text)
    assert audited.run("--source", f"same={audited.bundle}") == 0, audited.stderr
    with np.load(audited.out / "adversarial.npz", allow_pickle=False) as kept:
        by, names = kept["by"], kept["attacks"].tolist()
    made = {names[n] for n in by if n >= 0}
    assert len(names) > 1 and made - {"fgsm"}, "a clip that the suite left standing fell to another attack"
    assert set(names) >= {"fgsm", "pgd", "pgd from same"}
