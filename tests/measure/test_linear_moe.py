"""Against exact answers: the suite finds nearly all that can be found on linear mixtures, and nothing that cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hardroute.audit.attacks import ATTACKS, SUITES
from tests.measure.linear_moe import EXPERTS, SHAPES, Gap, Problem


@pytest.fixture(scope="module")
def gaps() -> list[Gap]:
    # AutoAttack's hundreds of iterations are for the record, not for a quick test.
    quick = [name for name in SUITES["full"] if ATTACKS[name].budget is None]
    return [Gap.measure(Problem.draw(7, *shape, clips=60), quick) for shape in SHAPES]


def test_the_suite_comes_within_a_point_of_the_exact_answer(gaps: list[Gap]) -> None:
    missed = [gap.missed for gap in gaps]
    assert np.mean(missed) <= 1 and max(missed) <= 3.4  # two of 60 clips
    assert any(20 < gap.exact < 80 for gap in gaps)


def test_attacks_that_do_not_choose_the_route_would_certify_air(gaps: list[Gap]) -> None:
    for name in ("pgd-hard", "j-tlga"):
        assert np.mean([gap.single[name] - gap.exact for gap in gaps]) > 10
    assert np.mean([gap.single["route-then-attack"] - gap.exact for gap in gaps]) < 3
    assert np.mean([gap.single["route-then-attack-t"] - gap.exact for gap in gaps]) < 2


def test_the_linear_program_agrees_with_a_search_of_all_corners() -> None:
    """Two pixels that matter: every region that the box meets, a fine grid meets too."""
    problem = Problem.draw(3, 1, 3, 40, clips=40)
    with torch.no_grad():
        for network in (problem.model.router, *problem.model.experts):
            network.weight[:, 2:] = 0
            network.bias.copy_(-network.weight.sum(1) / 2)
        y = problem.model(problem.x).argmax(1)
    problem = Problem("two pixels", problem.model, problem.x, y, problem.eps)
    line = torch.linspace(-problem.eps, problem.eps, 161)
    offsets = torch.zeros(161 * 161, 8)
    offsets[:, :2] = torch.cartesian_prod(line, line)
    found = []
    for clip, label in zip(problem.x, y, strict=True):
        grid = (clip.flatten() + offsets).clamp(0, 1).view(-1, 1, 2, 2, 2)
        with torch.no_grad():
            found.append(bool((problem.model(grid).argmax(1) == label).all()))
    exact = problem.exact()
    assert not (exact & ~np.array(found)).any()
    assert (exact == np.array(found)).mean() >= 0.95 and 0 < exact.sum() < len(exact)
    assert len(problem.model.experts) == EXPERTS


def test_every_attack_of_the_standard_suite_is_part_of_the_full_one() -> None:
    assert set(SUITES["standard"]) <= set(SUITES["full"])
