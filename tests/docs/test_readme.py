"""The README keeps its word: its Python runs, and it explains every field of a log line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hardroute.runtime.routelog import RouteRecord
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_there_is_something_to_test() -> None:
    assert len(blocks("python")) >= 2


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join(blocks("python"))]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *_, robust = done.stdout.split()
    assert 0 <= float(robust) <= 1


def test_every_field_of_the_routing_log_is_explained() -> None:
    rows = README.split("| field | meaning |")[1].split("\n\n")[0].strip().splitlines()
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert explained == {field.name for field in fields(RouteRecord)}
