"""A run's folder: what is damaged in it is one line, and what an older version wrote can still be read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hardroute.runtime.errors import DataError
from hardroute.training.loop import Trainer
from hardroute.training.run import ClipsDigest, EpochRecord, Run, ValidatedEpoch
from hardroute.training.settings import FitSettings
from tests.support.training import SMALL, Silent, train, two_signals


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run"), method="plain", epochs=2, validate_every=2).root


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    shutil.copytree(finished, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("state.json", b""),
        ("state.json", b'{"epoch": "two"}'),
        ("state.json", b'{"epoch": -1}'),
        ("state.json", b"[]"),
        ("state.json", b"\xff\xfe"),
        ("state.json", b'{"epoch": 9}'),
        ("metrics.jsonl", b""),
        ("metrics.jsonl", b'{"epoch": 1'),
        ("metrics.jsonl", b'{"epoch": 2, "loss": {}}\n{"epoch": 1, "loss": {}}\n'),
        ("metrics.jsonl", b'{"epoch": 1, "loss": 3}\n{"epoch": 2, "loss": 3}\n'),
        ("metrics.jsonl", None),
        ("epoch-0002/resume.safetensors", b"torn"),
        ("epoch-0002/resume.safetensors", None),
    ],
)
def test_a_damaged_file_is_named_in_one_line(run: Run, name: str, data: bytes | None) -> None:
    path = run.root / name
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError, match="missing or damaged") as raised:
        Trainer(run, two_signals(16, 0), two_signals(8, 1), Silent())
    assert "\n" not in str(raised.value)


def test_weights_of_other_settings_are_not_resumed(run: Run, finished: Path) -> None:
    record = run.record.model_copy(update={"settings": run.record.settings.model_copy(update={"width": 6})})
    with pytest.raises(DataError, match="not of its settings"):
        Trainer(Run(run.root, record), two_signals(16, 0), two_signals(8, 1), Silent())


def test_records_are_read_as_they_were_written(run: Run) -> None:
    first, second = run.metrics
    assert type(first) is EpochRecord and type(second) is ValidatedEpoch
    assert run.best == second
    assert first.passes["expert_forward"] == 48 and sum(first.trained_load) == pytest.approx(1)


def test_a_loss_that_is_no_number_can_be_written_and_read(run: Run) -> None:
    line = EpochRecord(epoch=1, loss={"moe": float("nan")}).model_dump_json()
    assert str(EpochRecord.model_validate_json(line).loss["moe"]) == "nan"


def test_records_of_older_versions_are_read(run: Run) -> None:
    old = json.loads((run.root / "run.json").read_text())
    del old["train"], old["val"], old["settings"]["weight_eps"]
    old["settings"]["together"] = old["settings"].pop("shared_start")
    (run.root / "run.json").write_text(json.dumps(old))
    lines = [
        '{"epoch": 1, "loss": {"moe": 1.5}, "copies": true, "passes": {}, "seconds": 1.0}',
        '{"epoch": 2, "loss": {"moe": NaN}, "clean": 0.5, "robust": 0.25, "under": {"fgsm": 0.5}, "load": [0.5, 0.5],'
        ' "load_entropy": 1.0, "attacked_load_entropy": 1.0, "route_flips": 0.0, "clips": 8, "seconds": 1}',
    ]
    (run.root / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    read = Run.open(run.root)
    assert read.record.settings == run.record.settings and read.record.train is None
    assert [epoch.copies for epoch in read.metrics] == [True, False] and read.best.robust == 0.25


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_settings_that_json_cannot_hold_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        FitSettings(**SMALL, lr=value)


def test_the_digest_of_clips_tells_files_from_labels() -> None:
    clips = two_signals(8, 0)
    digest = ClipsDigest.of(clips)
    assert digest.first_difference(ClipsDigest.of(clips)) is None
    other = replace(clips, labels=1 - clips.labels)
    assert digest.first_difference(ClipsDigest.of(other)) == "labels"
    other = replace(clips, sha256=clips.sha256[::-1], labels=clips.labels)
    assert digest.first_difference(ClipsDigest.of(other)) == "files"
