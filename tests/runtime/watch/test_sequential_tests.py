"""Fair bets and exact ranks: enumerated where that is possible, simulated with fixed seeds where it is not."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hardroute.runtime.watch.sequential_tests import RANKS, ChoiceRanks, Evidence, NumberRanks


def cells() -> tuple[np.ndarray, np.ndarray]:
    """One p-value from each piece on which all bets are constant, and the lengths of the pieces."""
    edges = np.unique(np.round([0.0, 1.0, *RANKS, *(1 - np.array(RANKS))], 12))
    return (edges[:-1] + edges[1:]) / 2, np.diff(edges)


@pytest.mark.parametrize("high", [False, True])
def test_what_all_bets_hold_grows_by_one_a_window_on_average(high: bool) -> None:
    """R_t - t is a martingale: exact expectation over every pattern of three uniform p-values."""
    middles, lengths = cells()
    expected = np.zeros(3)
    for pattern in itertools.product(range(len(middles)), repeat=3):
        evidence = Evidence(1, (0.25, 0.95), high=high)
        for t, cell in enumerate(pattern):
            evidence.add(np.array([middles[cell]]))
            expected[t] += math.prod(lengths[list(pattern)]) * math.exp(evidence.log)
    assert expected == pytest.approx([1, 2, 3])


def test_evidence_is_the_sum_over_all_starts_of_the_mean_bet() -> None:
    """Against the definition: products of the bets' pay from each start to now, added up."""
    p = np.random.default_rng(0).random((30, 2))
    evidence = Evidence(2, (0.1, 0.5), high=True)
    for each in p:
        evidence.add(each)
    totals = []
    for stream in p.T:
        bets = [
            1 - share + share * (side <= rank) / rank
            for share in (0.1, 0.5)
            for rank in RANKS
            for side in (stream, 1 - stream)
        ]
        totals.append(sum(np.mean([pay[start:].prod() for pay in bets]) for start in range(30)))
    assert evidence.log == pytest.approx(math.log(max(totals) / 2))
    assert evidence.stream == np.argmax(totals)


def test_endless_evidence_stays_finite() -> None:
    evidence = Evidence(1, (0.95,))
    for _ in range(1000):
        evidence.add(np.array([0.001]))
    assert 600 < evidence.log < math.inf


def test_ranks_are_independent_and_uniform_whatever_the_order() -> None:
    """Two certified numbers and three windows, exchangeable, with a tie: every order of the five is as likely, so
    the cells of (p_1, p_2, p_3) must be hit exactly as often as independent uniform ones would be.
    """
    values = (1.0, 2.0, 2.0, 3.0, 4.0)
    # Draws to break ties on a grid that is even within each cell of size 1 / 3, 1 / 4 and 1 / 5.
    draws = [(np.arange(4) + 0.5) / 4] * 3
    hits = np.zeros((3, 4, 5))
    for order in itertools.permutations(values):
        for u in itertools.product(*draws):
            ranks = NumberRanks(order[:2])
            p = [ranks.add(value, float(draw)) for value, draw in zip(order[2:], u, strict=True)]
            hits[tuple(int(each * size) for each, size in zip(p, (3, 4, 5), strict=True))] += 1
    assert (hits == hits.sum() / 60).all()


def test_ranks_of_a_choice_are_those_of_its_indicator() -> None:
    rng = np.random.default_rng(1)
    certified, windows = rng.integers(0, 3, 20).tolist(), rng.integers(0, 3, 40).tolist()
    choices = ChoiceRanks(np.bincount(certified, minlength=3).tolist())
    indicators = [NumberRanks([float(c != expert) for c in certified]) for expert in range(3)]
    for choice in windows:
        u = float(rng.random())
        expected = [ranks.add(float(choice != expert), u) for expert, ranks in enumerate(indicators)]
        assert choices.add(choice, u) == pytest.approx(expected)


def test_a_small_baseline_does_not_wear_out() -> None:
    """Twenty certified clips and 4,000 windows: p-values that compared with the twenty alone would be uneven."""
    uneven = 0.0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        ranks = NumberRanks(rng.normal(size=20).tolist())
        p = np.array([ranks.add(float(rng.normal()), float(rng.random())) for _ in range(4000)])
        # Pearson's statistic over ten cells: 9 on average where p is uniform.
        uneven += (((np.histogram(p, 10, (0, 1))[0] - 400) ** 2) / 400).sum() / 30
    assert 7 < uneven < 11
