"""docs/embedding.md keeps its word: its Python runs as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hardroute import Bundle
from tests.support.bundles import write_video
from tests.support.paths import DOCS

NAMES = ("archive", "door")
TEXT = (DOCS / "embedding.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name."""
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "a.mp4")
    write_video(tmp_path / "clips" / "b.mp4", seed=1)
    write_video(tmp_path / "door.mp4", seed=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(code: str) -> None:
    # As a module of its own, so that functions in it see the names around them.
    exec(compile(code, "embedding.md", "exec"), {"__name__": "__main__"})  # noqa: S102 -- our own documentation


def test_there_is_something_to_run() -> None:
    assert len(BLOCKS) == 2


def test_many_sources_through_a_hub(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(BLOCKS[0])
    lines = [json.loads(line) for line in (place / "routes.jsonl").read_text().splitlines()]
    windows = {name: [line["window"]["start"] for line in lines if line.get("stream") == name] for name in NAMES}
    # Videos of one second: half a second at a time of two of them, and every quarter of a third, of whose last
    # window half is played.
    assert windows == {"archive": [0.0, 0.5, 0.0, 0.5], "door": [0.0, 0.25, 0.5, 0.75]}
    *heard, counts = capsys.readouterr().out.splitlines()
    said = [line.split() for line in heard if not line.startswith("ALARM")]
    assert sorted(name for name, _, _ in said) == sorted(line["stream"] for line in lines)
    assert {label for _, _, label in said} <= set(Bundle.open("motion").manifest.classes)
    assert "answered=4" in counts


def test_clips_of_ones_own(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(BLOCKS[1])
    (line,) = map(json.loads, (place / "routes.jsonl").read_text().splitlines())
    assert line["clip"] == "door.mp4"
    assert capsys.readouterr().out.split() == [line["label"], str(line["expert"])]
