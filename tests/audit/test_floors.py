"""Below its floors an audit certifies nothing, and says which it was."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from hardroute.audit.evaluation.statistics import wilson
from hardroute.audit.floors import FLOORS, MIN_CLIPS, Basis, shortfalls
from hardroute.audit.policy import Policy
from tests.support.audit_models import with_attacks, with_bounds

STANDARD = Policy.load("standard")
SOUND = Basis(STANDARD, classes=8, distinct=320, audited=320)


def asking(clips: int) -> Policy:
    return STANDARD.model_copy(update={"data": STANDARD.data.model_copy(update={"clips": clips})})


def test_the_shipped_policy_certifies_on_the_shipped_classes() -> None:
    assert shortfalls(SOUND) == () and shortfalls(Basis(STANDARD, classes=8)) == ()


@pytest.mark.parametrize(
    ("floor", "basis", "said"),
    [
        ("in full", replace(SOUND, limit=300), "at most 300 clips were asked for"),
        ("as served", replace(SOUND, precision="bf16"), "attacks saw the model in bf16"),
        ("clips", replace(SOUND, policy=asking(99)), "the policy asks for 99 clips; at least 100 are needed"),
        ("clips", replace(SOUND, distinct=99, audited=99), "99 distinct clips were audited; at least 100 are needed"),
        ("once each", replace(SOUND, distinct=319), "1 of 320 clips are copies of others"),
        (
            "radius",
            replace(SOUND, policy=with_attacks(STANDARD, eps=(0, 8), gate_eps=0)),
            "the policy decides at eps 0/255; it must be above 0",
        ),
        ("radius", replace(SOUND, policy=with_attacks(STANDARD, gate_eps=6)), "decides at eps 6/255; .* attacked at"),
        (
            "attacks",
            replace(SOUND, policy=with_attacks(STANDARD, suite="quick")),
            "suite 'quick' leaves out pgd-hard, pgd-margin, route-then-attack; ",
        ),
        ("steps", replace(SOUND, policy=with_attacks(STANDARD, steps=9)), "attacks take 9 steps; at least 10"),
        (
            "clean accuracy",
            replace(SOUND, policy=with_bounds(STANDARD, clean_accuracy=0.125)),
            "clean_accuracy of 0.125; it must be above chance, 0.125 with 8 classes",
        ),
        (
            "robust accuracy",
            replace(SOUND, policy=with_bounds(STANDARD, robust_accuracy=0.0)),
            "robust_accuracy of 0; it must be above chance",
        ),
        ("robust accuracy", replace(SOUND, classes=2), "robust_accuracy of 0.45; it must be above chance, 0.5"),
        ("agreement", replace(SOUND, policy=with_bounds(STANDARD, min_agreement=0.5)), "min_agreement of 0.5"),
        (
            "gradients",
            replace(SOUND, policy=with_bounds(STANDARD, max_dead_gradients=1.0)),
            "max_dead_gradients of 1; at most 0.1",
        ),
    ],
)
def test_each_floor_says_what_is_missing_and_no_other_does(floor: str, basis: Basis, said: str) -> None:
    short = {each.name: sentence for each in FLOORS if (sentence := each.short(basis)) is not None}
    assert list(short) == [floor] and re.search(said, short[floor]), short


def test_every_floor_has_its_case() -> None:
    cases = next(mark for mark in test_each_floor_says_what_is_missing_and_no_other_does.pytestmark)  # type: ignore[attr-defined]
    assert {case[0] for case in cases.args[1]} == {floor.name for floor in FLOORS}


def test_quick_certifies_nothing() -> None:
    said = shortfalls(Basis(Policy.load("quick"), classes=8))
    assert [sentence.split()[0] for sentence in said] == ["the", "suite", "attacks"]  # clips, attacks, steps


def test_so_many_clips_give_a_figure_to_ten_points_either_way() -> None:
    ends = np.array([wilson(successes, MIN_CLIPS) for successes in range(MIN_CLIPS + 1)])
    assert (ends[:, 1] - ends[:, 0]).max() < 0.2
    fewer = np.array([wilson(successes, MIN_CLIPS // 2) for successes in range(MIN_CLIPS // 2 + 1)])
    assert (fewer[:, 1] - fewer[:, 0]).max() > 0.2


def test_the_largest_suite_holds_the_least() -> None:
    assert shortfalls(replace(SOUND, policy=with_attacks(STANDARD, suite="full"))) == ()
