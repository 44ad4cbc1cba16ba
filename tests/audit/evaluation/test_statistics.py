"""Oracle: scipy's own Wilson interval."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute.audit.evaluation.statistics import Proportion, load_entropy, load_of, wilson


@given(st.integers(1, 2000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(n: int, share: float, confidence: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    successes = round(share * n)
    oracle = stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    assert wilson(successes, n, confidence) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_wilson_corners_have_a_closed_form(n: int) -> None:
    z2 = 1.959963984540054**2
    assert wilson(0, n) == pytest.approx((0.0, z2 / (n + z2)), abs=1e-12)
    assert wilson(n, n) == pytest.approx((n / (n + z2), 1.0), abs=1e-12)


def test_without_clips_nothing_is_known() -> None:
    nothing = Proportion.of(np.zeros(0, bool))
    assert (nothing.low, nothing.high) == (0.0, 1.0)
    assert math.isnan(nothing.share) and nothing.as_dict()["share"] is None
    assert str(nothing) == "no clips"


@pytest.mark.parametrize(("successes", "n"), [(-1, 3), (4, 3), (0, -1)])
def test_counts_that_cannot_be(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        wilson(successes, n)


def test_proportion_reads_well() -> None:
    half = Proportion.of(np.array([True, False] * 50))
    assert half.successes == 50 and half.share == 0.5
    assert str(half) == "50.0 % (40.4 to 59.6, n = 100)"


def test_load_and_entropy() -> None:
    load = load_of(np.array([0, 0, 2, 2]), 4)
    assert load.tolist() == [0.5, 0, 0.5, 0]
    assert load_entropy(load) == pytest.approx(0.5)
    assert load_entropy(np.full(4, 0.25)) == pytest.approx(1.0)
    assert load_entropy(np.array([0, 1.0, 0])) == 0.0
    assert load_entropy(np.array([1.0])) == 1.0
