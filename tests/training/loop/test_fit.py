"""Runs begun and gone on with: what is refused before anything is trained."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from hardroute.runtime.datasets import open_set
from hardroute.runtime.errors import DataError, HardrouteError
from hardroute.training.loop import fit_run
from hardroute.training.run import Run
from hardroute.training.settings import FitSettings

SMALL: dict[str, Any] = {
    "method": "plain", "experts": 2, "width": 2, "router_width": 2, "blocks": (1, 0, 0, 0), "frames": 2, "size": 8,
    "batch": 8, "epochs": 1,
}  # fmt: skip


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A set of its own, whose manifest a test may change."""
    monkeypatch.setenv("HARDROUTE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    source = open_set("motion:train=2,val=1,test=0")
    root = tmp_path_factory.mktemp("set")
    for row in source.rows:
        (root / row.file).parent.mkdir(parents=True, exist_ok=True)
        (root / row.file).write_bytes(row.path.read_bytes())
    write(root, [[row.file, row.label, row.split] for row in source.rows])
    return root


def write(root: Path, rows: list[list[str]]) -> None:
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "split"], *rows])


def rows(root: Path) -> list[list[str]]:
    with (root / "manifest.csv").open(newline="") as file:
        return list(csv.reader(file))[1:]


def fit(data: Path, out: Path, **settings: Any) -> Run:
    run = Run.open(out) if (out / "run.json").exists() else None
    return fit_run(FitSettings(data=str(data), **{**SMALL, **settings}), out, run=run)


def test_a_finished_run_of_the_same_settings_and_clips_is_taken_as_it_is(data: Path, tmp_path: Path) -> None:
    first = fit(data, tmp_path / "run")
    before = (tmp_path / "run" / "state.json").stat().st_mtime_ns
    assert fit(data, tmp_path / "run").best == first.best
    assert (tmp_path / "run" / "state.json").stat().st_mtime_ns == before


def test_other_settings_are_refused_and_the_first_is_named(data: Path, tmp_path: Path) -> None:
    fit(data, tmp_path / "run")
    with pytest.raises(DataError, match=r"other settings \(asked for: lr 0.5, not 0.002\)"):
        fit(data, tmp_path / "run", lr=0.5, seed=3)


def test_other_labels_are_refused(data: Path, tmp_path: Path) -> None:
    fit(data, tmp_path / "run")
    changed = rows(data)
    train = [i for i, row in enumerate(changed) if row[2] == "train"]
    one, other = train[0], next(i for i in train if changed[i][1] != changed[train[0]][1])
    changed[one][1], changed[other][1] = changed[other][1], changed[one][1]
    write(data, changed)
    with pytest.raises(DataError, match="the labels of split 'train' are no longer those"):
        fit(data, tmp_path / "run")


def test_other_files_are_refused(data: Path, tmp_path: Path) -> None:
    fit(data, tmp_path / "run")
    one, other = [data / row[0] for row in rows(data) if row[2] == "val"][:2]
    one.write_bytes(other.read_bytes())
    with pytest.raises(DataError, match="the files of split 'val' are no longer those"):
        fit(data, tmp_path / "run")


@pytest.mark.parametrize("name", ["x" * 201, "bell\a"])
def test_a_class_that_no_bundle_could_name_is_refused_before_training(data: Path, tmp_path: Path, name: str) -> None:
    first = rows(data)[0][1]
    write(data, [[file, name if label == first else label, split] for file, label, split in rows(data)])
    with pytest.raises(HardrouteError, match=r"class .* cannot stand in a bundle"):
        fit(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_expert_that_gets_a_single_clip_does_not_end_the_run(data: Path, tmp_path: Path) -> None:
    # Two frames of 16 pixels leave one value per channel in the last stage.
    run = fit(data, tmp_path / "run", blocks=(1, 1, 1, 1), size=16, batch=2, experts=4)
    assert run.finished_epochs == 1
    assert all(value.isfinite().all() for value in run.load_best().state_dict().values())
