"""`python -m training`, from clips to a bundle that serves and is audited, and what bad input gets."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hardroute import Bundle
from hardroute.cli import app
from hardroute.runtime.errors import HardrouteError
from tests.support.paths import ROOT

SMALL = ["--experts", "2", "--width", "2", "--router-width", "2", "--blocks", "1,1,0,0", "--frames", "4"]
SMALL += ["--size", "16", "--batch", "8", "--inner-steps", "1"]
DATA = "motion:train=2,val=1,test=1"


def command(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, cwd=cwd, check=False
    )


def invoke(*words: str | Path) -> str:
    """The one error line of a command that must fail as a user's mistake."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert isinstance(result.exception, HardrouteError), (result.output, result.exception)
    line = str(result.exception)
    assert "\n" not in line
    return line


def test_a_clip_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDROUTE_CACHE", str(tmp_path / "cache"))
    root = ROOT
    fit: list[str | Path] = ["training", "fit", "--data", DATA, "--out", tmp_path / "run", "--epochs", "1", *SMALL]
    done = command(*fit, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "best epoch 1" in done.stdout
    again = command(*fit, cwd=root)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr.splitlines()[-1].startswith("error: ")
    assert "--resume" in again.stderr

    other = command(*fit, "--resume", "--lr", "0.5", cwd=root)
    assert (other.returncode, other.stdout) == (2, "")
    assert "other settings (asked for: lr 0.5, not 0.002)" in other.stderr.splitlines()[-1]
    same = command(*fit, "--resume", cwd=root)
    assert same.returncode == 0 and same.stdout == done.stdout

    done = command("training", "export", tmp_path / "run", "--out", tmp_path / "bundle", "--single", cwd=root)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["training"]["settings"]["method"] == "j-tlat"
    assert manifest["contract"]["frames"] == 4

    # The audit knows which clips it was trained on.
    seen = Bundle.open(tmp_path / "bundle").training_clips()
    cached = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "cache").rglob("*.avi")}
    assert seen and seen.files == {digest for path, digest in cached.items() if path.parent.name == "train"}
    own = tmp_path / "own.toml"
    own.write_text((ROOT / "audit/policies/quick.toml").read_text().replace('"quick"', '"own"', 1))
    own.write_text(own.read_text().replace('split = "test"', 'split = "train"'))
    done = command("audit", tmp_path / "bundle", "--data", DATA, "--policy", own, "--out", tmp_path / "b", cwd=root)
    assert done.returncode == 2 and "was trained on 16 of these 16 clips" in done.stderr, done.stderr

    video = next((tmp_path / "cache").rglob("*.avi"))
    done = command("runtime", "predict", tmp_path / "bundle", video, "--log", tmp_path / "log.jsonl", cwd=root)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "log.jsonl").read_text())
    assert record["label"] in manifest["classes"]
    assert len(record["weights"]) == 2

    done = command("audit", tmp_path / "bundle", "--data", DATA, "--policy", "quick", "--out", tmp_path / "a", cwd=root)
    # A model after one epoch on sixteen clips is no model to serve.
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "a" / "report.json").exists()


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--method", "magic"], "unknown method 'magic'"),
            (["--expert", "vit"], "unknown expert 'vit'"),
            (["--width", "0"], "--width"),
            (["--blocks", "1,1"], "--blocks"),
            (["--blocks", "1,1,x,0"], "--blocks"),
            (["--device", "tpu"], "--device"),
            (["--eps", "300"], "--eps"),
            (["--lr", "inf"], "--lr"),
        ],
    )
    def test_a_setting(self, tmp_path: Path, words: list[str], says: str) -> None:
        assert says in invoke("fit", "--data", DATA, "--out", tmp_path / "run", *words)
        assert not list(tmp_path.iterdir())

    def test_a_set_that_is_not_there(self, tmp_path: Path) -> None:
        assert "nowhere" in invoke("fit", "--data", tmp_path / "nowhere", "--out", tmp_path / "run")
        assert not list(tmp_path.iterdir())

    def test_a_set_without_a_validation_split(self, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "a.avi").write_bytes(b"")
        with (tmp_path / "set" / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["file", "label", "split"], ["a.avi", "a", "train"], ["a.avi", "b", "train"]])
        assert "val" in invoke("fit", "--data", tmp_path / "set", "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_set_of_one_class(self, tmp_path: Path) -> None:
        (tmp_path / "set").mkdir()
        for name in ("a.avi", "b.avi"):
            (tmp_path / "set" / name).write_bytes(b"")
        (tmp_path / "set" / "manifest.csv").write_text("file,label,split\na.avi,only,train\nb.avi,only,val\n")
        assert "two classes or more" in invoke("fit", "--data", tmp_path / "set", "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_a_run_that_is_not_there(self, tmp_path: Path) -> None:
        assert "run.json" in invoke("export", tmp_path / "nowhere", "--out", tmp_path / "bundle")
        assert not list(tmp_path.iterdir())

    def test_a_run_record_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("{")
        assert "cannot be read" in invoke("export", tmp_path, "--out", tmp_path / "bundle")


@pytest.mark.parametrize("verb", ["fit", "export", "compare", "evaluate"])
def test_help_loads_no_torch(verb: str) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from hardroute.cli import app\n"
        f"result = CliRunner().invoke(app, [{verb!r}, '--help'])\n"
        "assert result.exit_code == 0 and 'Usage' in result.output, result\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
