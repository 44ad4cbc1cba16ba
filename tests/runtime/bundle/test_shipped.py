"""A shipped bundle goes by its name, and never in place of something else that was meant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hardroute
from hardroute import Bundle, Engine
from hardroute.runtime.bundle import find_bundle
from hardroute.runtime.errors import BundleError
from tests.support import bundles

ZOO = Path(hardroute.__file__).parent / "models" / "zoo"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that holds what people have: a folder called models/."""
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_is_the_shipped_bundle_wherever_one_works() -> None:
    assert find_bundle("motion") == ZOO / "motion"
    assert Bundle.open("motion").root.samefile(ZOO / "motion")
    assert Bundle.open("motion") == Bundle.open(ZOO / "motion") == Bundle.open(str(ZOO / "motion"))
    with Engine.load("motion", threads=1) as engine:
        assert engine.bundle == Bundle.open("motion")


@pytest.mark.parametrize("what", ["empty folder", "file", "nothing"])
def test_what_is_no_bundle_does_not_hide_it(elsewhere: Path, what: str) -> None:
    if what == "file":
        (elsewhere / "motion").write_bytes(b"")
    elif what == "empty folder":
        (elsewhere / "motion").mkdir()
    assert find_bundle("motion") == ZOO / "motion"


def test_a_bundle_of_that_name_here_is_neither_hidden_nor_taken_for_it(elsewhere: Path) -> None:
    mine = bundles.make_bundle(elsewhere / "motion").root
    with pytest.raises(BundleError, match=r"^motion: .*write \./motion for the one here"):
        find_bundle("motion")
    for spec in ("./motion", "motion/", str(mine), mine, Path("motion")):
        assert Bundle.open(spec).manifest.name == "tiny"


def test_even_one_whose_manifest_is_a_broken_link(elsewhere: Path) -> None:
    (elsewhere / "motion").mkdir()
    (elsewhere / "motion" / "manifest.json").symlink_to("gone")
    with pytest.raises(BundleError, match="write"):
        find_bundle("motion")


@pytest.mark.parametrize("spec", ["motoin", "models/zoo/motion", "./motion", Path("motion"), "a\nb\x1b[2J", "a\0b"])
def test_what_is_neither_is_one_line_that_lists_the_shipped_ones(spec: str | Path) -> None:
    with pytest.raises(BundleError) as caught:
        Bundle.open(spec)
    assert str(caught.value).endswith("the name of a shipped bundle: motion") and str(caught.value).isprintable()


def test_a_folder_of_another_name_needs_no_separator(elsewhere: Path) -> None:
    bundles.make_bundle(elsewhere / "mine")
    assert Bundle.open("mine").manifest.name == "tiny"


def test_the_commands_take_names(elsewhere: Path) -> None:
    shown = subprocess.run([sys.executable, "-m", "hardroute", "info", "motion"], capture_output=True, text=True)
    assert shown.returncode == 0 and Bundle.open("motion").digest in shown.stdout
    video = bundles.write_video(elsewhere / "a.mp4")
    command = [sys.executable, "-m", "hardroute", "predict", "motion", str(video), "--threads", "1", "--json"]
    answered = subprocess.run(command, capture_output=True, text=True)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["label"] in Bundle.open("motion").manifest.classes
    refused = subprocess.run([*command[:4], "motoin", str(video)], capture_output=True, text=True)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "shipped bundle: motion" in refused.stderr
    bundles.make_bundle(elsewhere / "motion")
    mine = subprocess.run([sys.executable, "-m", "hardroute", "info", "./motion"], capture_output=True, text=True)
    assert mine.returncode == 0 and "tiny" in mine.stdout
