"""Methods compared at equal compute: trained, exported, audited, one table; and again from where it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hardroute.cli import app
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.errors import DataError, HardrouteError
from hardroute.training.comparison.report import table

POLICY = """
schema_version = 1
name = "tiny"
[data]
split = "test"
clips = 8
seed = 0
[attacks]
suite = "quick"
eps = [8]
gate_eps = 8
steps = 2
seed = 0
[thresholds]
clean_accuracy = 0.0
robust_accuracy = 0.0
min_load_entropy = 0.0
min_agreement = 0.0
max_dead_gradients = 1.0
"""
FIT = (
    "--experts 2 --width 2 --router-width 2 --blocks 1,1,0,0 --frames 4 --size 16 --batch 8 --inner-steps 1 --epochs 3"
)


def compare(root: Path, *words: str, policy: str = POLICY) -> str:
    (root / "tiny.toml").write_text(policy)
    command = ["compare", "--data", "motion:train=2,val=1,test=1", "--out", str(root / "out"), *FIT.split()]
    result = CliRunner().invoke(app, [*command, "--policy", str(root / "tiny.toml"), *words])
    if result.exception:
        raise result.exception
    return result.output


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDROUTE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_one_command_gives_one_table_and_goes_on_where_it_was(tmp_path: Path) -> None:
    compare(tmp_path, "--method", "at-m")
    run = tmp_path / "out" / "runs" / "at-m-0"
    before = (run / "state.json").stat().st_mtime_ns
    said = compare(tmp_path, "--method", "at-m", "--method", "j-tlat")
    assert (run / "state.json").stat().st_mtime_ns == before, "what is done is not done again"
    reference, joint = rows = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [(row["method"], row["seed"]) for row in rows] == [("at-m", 0), ("j-tlat", 0)]
    assert reference["epochs"] == 3 and joint["epochs"] == 2
    assert set(joint["accuracy"]) >= {"CLEAN", "PGD", "FGSM", "J-TLGA", "worst case"}
    assert joint["accuracy"]["CLEAN"]["n"] == 8
    lines = (tmp_path / "out" / "compare.md").read_text().splitlines()
    assert len({line.count("|") for line in lines[2:]}) == 1 and len(lines) == 6
    assert "| j-tlat | 0 | 2 |" in said
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_small_scores_do_not_make_a_router_look_steadier(tmp_path: Path) -> None:
    accuracy = {"CLEAN": {"share": 0.5, "low": 0.4, "high": 0.6, "n": 8}}
    row: Any = {"method": "m", "seed": 0, "epochs": 1, "accuracy": accuracy, "eps_255": 8, "training_tflops": 1.0}
    row |= {"lips_j": None, "gflops": {"routed": 1.0}, "load_entropy": 1.0}
    large: Any = {**row, "lips_r": {"mean": 0.5}, "router_spread": 2.0}
    small: Any = {**row, "lips_r": {"mean": 0.005}, "router_spread": 0.02}
    still: Any = {**row, "lips_r": None, "router_spread": 0.0}
    *_, first, second = table([large, small, still]).splitlines()[:-1]
    assert "| 0.5 | 0.25 | - |" in first and "| 0.005 | 0.25 | - |" in second


def test_runs_of_other_settings_are_not_taken_for_these(tmp_path: Path) -> None:
    compare(tmp_path, "--method", "plain")
    with pytest.raises(DataError, match="other settings"):
        compare(tmp_path, "--method", "plain", "--lr", "0.5")


def test_an_audit_of_another_policy_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    compare(tmp_path, "--method", "plain")
    report = tmp_path / "out" / "audits" / "plain-0" / "report.json"
    first, before = json.loads(report.read_text()), report.stat().st_mtime_ns
    compare(tmp_path, "--method", "plain")
    assert report.stat().st_mtime_ns == before, "what is done is not done again"
    harder = POLICY.replace("eps = [8]", "eps = [64]").replace("gate_eps = 8", "gate_eps = 64")
    compare(tmp_path, "--method", "plain", policy=harder)
    second = json.loads(report.read_text())
    assert first["bundle"]["digest"] == second["bundle"]["digest"]
    assert (first["tables"]["this_model"]["eps_255"], second["tables"]["this_model"]["eps_255"]) == (8, 64)
    assert json.loads((tmp_path / "out" / "compare.json").read_text())[0]["eps_255"] == 64


def test_after_a_run_is_removed_nothing_of_it_is_left_in_the_table(tmp_path: Path) -> None:
    compare(tmp_path, "--method", "plain")
    (old,) = json.loads((tmp_path / "out" / "compare.json").read_text())
    shutil.rmtree(tmp_path / "out" / "runs" / "plain-0")
    compare(tmp_path, "--method", "plain", "--lr", "0.01")
    (new,) = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert new["bundle"] != old["bundle"]
    report = json.loads((tmp_path / "out" / "audits" / "plain-0" / "report.json").read_text())
    assert report["bundle"]["digest"] == new["bundle"] == Bundle.open(tmp_path / "out" / "bundles" / "plain-0").digest


def test_an_unknown_method_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(HardrouteError, match="unknown method 'magic'"):
        compare(tmp_path, "--method", "plain", "--method", "magic")
    assert not (tmp_path / "out").exists()
