"""docs/watch.md is true: its code runs, and it names all that the watch says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from hardroute.runtime.watch import Watch
from hardroute.runtime.watch.sequential_tests import KINDS
from tests.support import bundles
from tests.support.paths import DOCS
from tests.support.watched import baseline

PAGE = (DOCS / "watch.md").read_text(encoding="utf-8")


def test_every_metric_and_every_alarm_has_its_row() -> None:
    section = PAGE.partition("## Metrics")[2].partition("## ")[0]
    named = set(re.findall(r"`([a-z0-9_]+)`", section.replace("...", "")))
    found = {re.sub(r"_\d+$", "_0", name) for name in Watch(baseline()).metrics()}
    evidence = {name for name in found if name.startswith("evidence_")}
    assert len(evidence) == len(KINDS) and "evidence_" in named
    assert found - evidence <= named
    rows = PAGE.partition("## Alarms")[2].partition("## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", rows, re.MULTILINE) == list(KINDS)


def test_its_code_runs(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    bundles.certify(bundle)
    video = bundles.write_video(tmp_path / "clip.mp4")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    code = (
        "\n".join(blocks).replace("bundle/", str(bundle)).replace("clip.mp4", str(video)).replace("test=40", "test=1")
    )
    exec(compile(code, "docs/watch.md", "exec"), {})  # noqa: S102
    assert len(capsys.readouterr().out.splitlines()) == 4
