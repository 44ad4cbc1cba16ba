"""A policy is what it says, or one line saying what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hardroute.audit.attacks import SUITES
from hardroute.audit.policy import SHIPPED, Policy, shipped
from hardroute.runtime.errors import PolicyError

STANDARD = (SHIPPED / "standard.toml").read_text(encoding="utf-8")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", shipped())
def test_shipped_policies_load_by_name(name: str) -> None:
    policy = Policy.load(name)
    assert policy.name == name and policy.attacks.suite in SUITES


def test_the_expected_policies_are_shipped() -> None:
    assert set(shipped()) >= {"quick", "standard"}


def test_the_digest_is_of_the_content_not_of_the_layout(tmp_path: Path) -> None:
    same = "# another comment\n" + STANDARD.replace("seed = 0\n", "seed   =   0\n").replace("= 0.5 ", "= 0.50 ")
    assert same != STANDARD
    assert Policy.load(written(tmp_path, same)).digest == Policy.load("standard").digest
    explicit = STANDARD.replace("max_dead_gradients = 0.05", "")
    assert Policy.load(written(tmp_path, explicit)).digest == Policy.load("standard").digest


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("robust_accuracy = 0.45", "robust_accuracy = 0.4500001"),
        ("eps = [2, 4, 8]", "eps = [4, 8]"),
        ("steps = 20", "steps = 19"),
        ('split = "test"', 'split = "train"'),
    ],
)
def test_any_changed_value_changes_the_digest(tmp_path: Path, before: str, after: str) -> None:
    assert before in STANDARD
    assert Policy.load(written(tmp_path, STANDARD.replace(before, after))).digest != Policy.load("standard").digest


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        (
            "clean_accuracy = 0.80",
            "clean_accuracy = 80",
            "thresholds.clean_accuracy: .*got 80; needs share in",
        ),
        (
            "clean_accuracy = 0.80",
            "clean_accuracy = nan",
            "thresholds.clean_accuracy: .*got nan; needs share in",
        ),
        ("clean_accuracy = 0.80", "clean_accuracy = false", "thresholds.clean_accuracy: .*got False; needs share in"),
        ("clean_accuracy = 0.80", 'clean_accuracy = "0.5"', "thresholds.clean_accuracy: .*got '0.5'; needs share in"),
        ("steps = 20", "steps = true", "attacks.steps: .*got True; needs whole number"),
        ("steps = 20", "steps = 20.0", "attacks.steps: .*got 20.0; needs whole number"),
        ("schema_version = 1", "schema_version = true", "schema_version: got true; needs 1"),
        ("clean_accuracy = 0.80", "", "thresholds.clean_accuracy: missing; needs share in"),
        (
            "clean_accuracy = 0.80",
            "clean_acuracy = 0.80",
            "thresholds.clean_acuracy: no such field; known here: ",
        ),
        ("[data]", "[dta]", "(data: missing; needs a table|dta: no such field; known here: schema_version)"),
        ("steps = 20", 'steps = "20"', "attacks.steps: .*got '20'; needs whole number"),
        ("steps = 20", "steps = 0", "attacks.steps: .*got 0; needs whole number"),
        ("eps = [2, 4, 8]", "eps = [2, 4, 8.5]", "attacks.eps: .*got 8.5; needs rising list"),
        ("eps = [2, 4, 8]", "eps = []", "attacks.eps: .*got \\[\\]; needs rising list"),
        ("eps = [2, 4, 8]", "eps = [8, 4, 2]", "attacks.eps: list each eps once, rising"),
        ("gate_eps = 8", "gate_eps = 6", "attacks.gate_eps: 6 is not in attacks.eps; add it"),
        ("schema_version = 1", "schema_version = 2", "schema_version: .*got 2; needs 1"),
        ('suite = "standard"', 'suite = "everything"', "attacks.suite: .*'everything'.*quick"),
        ("[data]", "[data", "not valid TOML"),
    ],
)
def test_a_bad_policy_is_one_line_with_file_field_and_mend(
    tmp_path: Path, before: str, after: str, complaint: str
) -> None:
    assert before in STANDARD
    path = written(tmp_path, STANDARD.replace(before, after))
    with pytest.raises(PolicyError, match=complaint) as error:
        Policy.load(path)
    assert str(error.value).startswith(f"policy {path}: ") and "\n" not in str(error.value)


def test_a_missing_policy_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"No such file.*quick, standard"):
        Policy.load(tmp_path / "none.toml")
    with pytest.raises(PolicyError, match="quick, standard"):
        Policy.load(tmp_path)


def test_binary_rubbish_is_not_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PolicyError, match="not valid TOML"):
        Policy.load(path)
