"""The README keeps its word: its Python runs, its commands know their options, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hardroute.cli import app
from hardroute.runtime.routelog import RouteRecord
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Every `python -m ...` line of the README's shell blocks."""
    lines = [line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith("python -m ")]


def make_targets() -> list[str]:
    return re.findall(r"^make (\w+)", "\n".join(path.read_text() for path in DOCS), re.MULTILINE)


def test_there_is_something_to_test() -> None:
    assert len(blocks("python")) >= 2
    assert len(commands()) >= 6
    assert len(make_targets()) >= 4


@pytest.mark.slow
def test_python_blocks_run_in_order(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "models/zoo").mkdir(parents=True)
    (tmp_path / "models/zoo/motion").symlink_to(tiny_bundle)
    # In a file, not by -c: then the folder `models` here is not taken for the package of that name.
    script = tmp_path / "code" / "readme.py"
    script.parent.mkdir()
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + "\n".join(blocks("python")))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *_, robust = done.stdout.split()
    assert 0 <= float(robust) <= 1


@pytest.mark.parametrize("command", commands())
def test_commands_know_their_options(command: str) -> None:
    _, _, package, *words = shlex.split(command)
    # A folder with one verb is that verb.
    sub = words[:1] if package in ("runtime", "training") else [package]
    shown = CliRunner().invoke(app, [*sub, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    assert [word for word in words if word.startswith("--") and word not in shown.output] == []


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert [name for name in make_targets() if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)#]+)\)", prose)
    assert [link for link in targets if "://" not in link and not (ROOT / link).exists()] == []


def test_every_field_of_the_routing_log_is_explained() -> None:
    rows = README.split("| field | meaning |")[1].split("\n\n")[0].strip().splitlines()
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert explained == {field.name for field in fields(RouteRecord)}
