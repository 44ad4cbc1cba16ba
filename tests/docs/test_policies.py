"""docs/policies.md is true: its command computes a policy's digest, and its figures are those of the floors."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hardroute.audit import floors
from hardroute.audit.evaluation.statistics import wilson
from hardroute.audit.policy import Policy
from hardroute.audit.policy_digest import digest
from tests.audit.test_cli import Audited
from tests.support.paths import DOCS

TEXT = (DOCS / "policies.md").read_text(encoding="utf-8")


def test_the_command_computes_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    audited = Audited(tmp_path, monkeypatch, capsys)
    assert audited.run() == 0, audited.stderr
    (script,) = re.findall(r"^python3 -c '(.*?)' certificate\.json$", TEXT, re.DOTALL | re.MULTILINE)
    # -I: nothing of hardroute can be imported.
    command = [sys.executable, "-I", "-c", script, str(audited.out / "certificate.json")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert said.split() == [digest(Policy.load(audited.policy))] * 2


def test_the_floors_are_told_with_their_figures() -> None:
    n = floors.MIN_CLIPS
    widest = max(high - low for low, high in (wilson(k, n) for k in range(n + 1)))
    assert f"| {n} distinct |" in TEXT and f"at most {100 * widest + 0.05:.1f} points wide" in TEXT
    assert f"| steps | {floors.MIN_STEPS} |" in TEXT
    assert f"`min_agreement` {floors.MIN_AGREEMENT:g} |" in TEXT
    assert f"`max_dead_gradients` at most {floors.MAX_DEAD_GRADIENTS:g} |" in TEXT
    told = re.findall(r"^\| ([a-z, ]+) \|", TEXT.split("## Floors")[1].split("## Before")[0], re.MULTILINE)
    names = {
        name for row in told for name in row.replace(" and robust accuracy", " accuracy, robust accuracy").split(", ")
    }
    assert {floor.name for floor in floors.FLOORS} <= names
