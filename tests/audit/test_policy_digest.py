"""A policy's digest is of what is run and asked: the same content has one digest, whatever it is called."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from hardroute.audit.attacks import ATTACKS, SUITES, Settings
from hardroute.audit.checks import CHECKS, Check
from hardroute.audit.policy import SHIPPED, Policy
from hardroute.audit.policy_digest import definition, digest

STANDARD = (SHIPPED / "standard.toml").read_text(encoding="utf-8")
OF_STANDARD = digest(Policy.load("standard"))


def written(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = STANDARD.replace('name = "standard"', 'name = "mine"')
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "changes",
    [
        (),
        (("seed = 0\n", "seed   =   0\n"), ("= 0.5 ", "= 0.50 ")),
        (("max_dead_gradients = 0.05", ""),),  # the default
    ],
)
def test_names_layout_and_defaults_do_not_change_it(tmp_path: Path, changes: tuple[tuple[str, str], ...]) -> None:
    assert digest(Policy.load(written(tmp_path, *changes))) == OF_STANDARD


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("robust_accuracy = 0.45", "robust_accuracy = 0.4500001"),
        ("eps = [2, 4, 8]", "eps = [4, 8]"),
        ("gate_eps = 8", "gate_eps = 4"),
        ("steps = 20", "steps = 19"),
        ('split = "test"', 'split = "train"'),
        ('suite = "standard"', 'suite = "quick"'),
    ],
)
def test_any_changed_value_changes_it(tmp_path: Path, before: str, after: str) -> None:
    assert digest(Policy.load(written(tmp_path, (before, after)))) != OF_STANDARD


@pytest.mark.parametrize(
    "cells",
    [
        {"settings": Settings(lam=1.0)},
        {"objective": ATTACKS["noise"].objective},
        {"path": "soft"},
        {"every_expert": True},
        {"then": (ATTACKS["square"],)},
        {"keep": "last"},
    ],
)
def test_another_attack_under_the_same_name_changes_it(
    monkeypatch: pytest.MonkeyPatch, cells: dict[str, object]
) -> None:
    monkeypatch.setitem(ATTACKS, "pgd-hard", ATTACKS["pgd-hard"].but(**cells))
    assert digest(Policy.load("standard")) != OF_STANDARD


def test_another_suite_under_the_same_name_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "standard", SUITES["standard"][:-1])
    assert digest(Policy.load("standard")) != OF_STANDARD


def test_the_same_suite_under_another_name_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "mine", SUITES["standard"])
    policy = Policy.load(written(tmp_path, ('suite = "standard"', 'suite = "mine"')))
    assert digest(policy) == OF_STANDARD


def test_a_check_that_goes_or_asks_for_less_changes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    row = CHECKS["unsaturated outputs"]
    assert isinstance(row, Check) and row.bounds
    monkeypatch.setitem(CHECKS, row.name, replace(row, bounds=dict.fromkeys(row.bounds, 1.0)))
    assert digest(Policy.load("standard")) != OF_STANDARD
    monkeypatch.delitem(CHECKS, row.name)
    assert digest(Policy.load("standard")) != OF_STANDARD


def test_no_two_attacks_are_told_apart_by_name_alone() -> None:
    told = [json.dumps(row.definition(steps=20), sort_keys=True) for row in ATTACKS.values()]
    assert len(set(told)) == len(ATTACKS)
    assert all(row.objective.text for row in ATTACKS.values())


def test_anybody_can_compute_it_from_the_definition() -> None:
    policy = Policy.load("standard")
    text = json.dumps(json.loads(json.dumps(definition(policy))), sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == OF_STANDARD
