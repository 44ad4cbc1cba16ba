"""How extreme is this clip among the certified ones and those seen since? Conformal p-values, made one by one.

If the baseline's n clips and the t windows seen since then are exchangeable, the rank of the newest among all n + t,
with ties broken at random, is uniform and independent of the earlier ranks (Vovk, Gammerman and Shafer, "Algorithmic
Learning in a Random World", 2005, chapter 2). So p_1, p_2, ... are independent and uniform on [0, 1], exactly and for
any n: a small baseline costs sensitivity, never false alarms.

Comparing with the n certified clips alone would not do. Given those n, such p-values are not uniform (the sample
differs from its population by about 1 / sqrt(n)), and a test that runs for ever would in the end find that difference.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np


class NumberRanks:
    """p-values of a number per window; small where the number is small."""

    def __init__(self, sample: Sequence[float]) -> None:
        self._pool = sorted(sample)

    def add(self, value: float, u: float) -> float:
        """Takes the next window's number and gives its p-value. `u`: a fresh draw from [0, 1), to break ties."""
        insort(self._pool, value)
        below, up_to = bisect_left(self._pool, value), bisect_right(self._pool, value)
        return (below + u * (up_to - below)) / len(self._pool)


class ChoiceRanks:
    """p-values of a choice of one of M per window: for each of the M, small where it was the one chosen."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = np.array(counts, np.float64)

    def add(self, choice: int, u: float) -> np.ndarray:
        """Takes the next window's choice and gives M p-values (not independent of one another)."""
        self._counts[choice] += 1
        total = self._counts.sum()
        # Among n + t windows the c that chose k come first, in random order, and then the others.
        p = (self._counts + u * (total - self._counts)) / total
        p[choice] = u * self._counts[choice] / total
        return p
