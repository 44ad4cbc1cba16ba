"""Sequential tests: from each window's prediction to the evidence that the traffic has changed.

**Ranks.** How extreme is this clip among the certified ones and those seen since? Conformal p-values, made one by one.

If the baseline's n clips and the t windows seen since then are exchangeable, the rank of the newest among all n + t,
with ties broken at random, is uniform and independent of the earlier ranks (Vovk, Gammerman and Shafer, "Algorithmic
Learning in a Random World", 2005, chapter 2). So p_1, p_2, ... are independent and uniform on [0, 1], exactly and for
any n: a small baseline costs sensitivity, never false alarms.

Comparing with the n certified clips alone would not do. Given those n, such p-values are not uniform (the sample
differs from its population by about 1 / sqrt(n)), and a test that runs for ever would in the end find that difference.

**Bet.** Evidence for a change is gathered by betting against uniform p-values from every window on. "From now on, a
share s of the windows has p <= tau, and the others are as certified" pays f(p) = 1 - s + s [p <= tau] / tau on a stake
of 1. For uniform p its mean is 1: a fair bet. If the statement is true the stake grows at the best rate there is (it
is the likelihood ratio). Nobody knows s, tau and the time of the change, so there is one bet for each s and tau of a
grid, and each is started anew at every window.

**Sum over starts.** R_t = f(p_t) (1 + R_t-1) is what all starts of one bet hold together (Shiryaev and Roberts; an
"e-detector": Shin, Ramdas and Rinaldo, 2023). R_t - t is a martingale while nothing has changed, and so is the mean of
several bets on the same p. By Doob's inequality

    P(R reaches A within N windows) <= N / A      for every N and A.

**Several p-values.** Streams of p-values that depend on each other are not averaged: each gets its own R and a
threshold higher by their number, and the chances add up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from hardroute.runtime.bundle.baseline import Baseline, log_odds
from hardroute.runtime.prediction import Prediction

COLLAPSE, LOAD, LOW_MARGIN, UNKNOWN = KINDS = ("collapse", "load", "low-margin", "unknown")
RANKS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_LARGEST: Final = 1e300
# Shares of the windows that a change is supposed to hit.
_NEARLY_ALL: Final = (0.95,)
_SOME: Final = (0.1, 0.25, 0.5)


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

    def add(self, value: float, u: float) -> np.ndarray:
        """Takes the next window's choice and gives M p-values (not independent of one another)."""
        choice = int(value)
        self._counts[choice] += 1
        total = self._counts.sum()
        # Among n + t windows the c that chose k come first, in random order, and then the others.
        p = (self._counts + u * (total - self._counts)) / total
        p[choice] = u * self._counts[choice] / total
        return p


class Evidence:
    """The sums of bets on several streams of p-values.

    Args:
        streams: number of p-values per window.
        shares: the grid of s.
        low: bet on p being too often small.
        high: bet on p being too often large.
    """

    def __init__(self, streams: int, shares: tuple[float, ...], low: bool = True, high: bool = False) -> None:
        grid = np.array([(share, rank) for share in shares for rank in RANKS])
        self._share, self._rank = grid[:, 0], grid[:, 1]
        self._low, self._high = low, high
        self._sums = np.zeros((streams, len(grid) * (low + high)))
        self.stream = 0  # the one with the most evidence
        self.log = -np.inf  # natural logarithm of its evidence, less that of the number of streams

    def add(self, p: np.ndarray) -> None:
        """Takes the next window's p-values (streams,)."""
        sides = [side for side, wanted in ((p, self._low), (1 - p, self._high)) if wanted]
        pays = [1 - self._share + self._share * (side[:, None] <= self._rank) / self._rank for side in sides]
        # Capped far above any threshold, so that a change that lasts for ever does not end in infinity.
        self._sums = np.minimum(np.concatenate(pays, axis=1) * (1 + self._sums), _LARGEST)
        evidence = self._sums.mean(axis=1)
        self.stream = int(evidence.argmax())
        self.log = float(np.log(evidence[self.stream] / len(evidence)))

    @property
    def strongest(self) -> tuple[int, bool]:
        """What the richest bet of that stream says: the index in `RANKS` of its tau, and whether p is too large."""
        bet = int(self._sums[self.stream].argmax())
        return RANKS.index(self._rank[bet % len(self._rank)]), not self._low or bet >= len(self._rank)


class Detector:
    """The four tests side by side, on the windows of one period: all compared with the baseline and with each other.

    Args:
        baseline: what counts as normal.
        rng: breaks ties.

    Attributes:
        windows: how many were added.
    """

    def __init__(self, baseline: Baseline, rng: np.random.Generator) -> None:
        self._baseline, self._rng = baseline, rng
        self._ranks: dict[str, NumberRanks | ChoiceRanks] = {}
        self._evidence: dict[str, Evidence] = {}
        for kind in KINDS:
            self.restart(kind)
        self.windows = 0

    def restart(self, kind: str) -> None:
        """Begins one test anew, with the certified clips alone: what it has seen since may be what it is to find."""
        experts = len(self._baseline.experts)
        if kind in (COLLAPSE, LOAD):
            self._ranks[kind] = ChoiceRanks(self._baseline.experts)
        else:
            self._ranks[kind] = NumberRanks(self._baseline.margins if kind == LOW_MARGIN else self._baseline.log_odds)
        self._evidence[kind] = {
            COLLAPSE: lambda: Evidence(experts, _NEARLY_ALL),
            LOAD: lambda: Evidence(experts, _SOME, high=True),
            LOW_MARGIN: lambda: Evidence(1, _SOME + _NEARLY_ALL),
            # Both sides: networks are known to be too sure of some inputs that they were never trained on.
            UNKNOWN: lambda: Evidence(1, _SOME + _NEARLY_ALL, high=True),
        }[kind]()

    @property
    def evidence(self) -> Mapping[str, Evidence]:
        """By kind of alarm, in the order of `KINDS`."""
        return self._evidence

    def add(self, prediction: Prediction) -> None:
        """Takes the next window."""
        u = self._rng.random(3)
        seen = {
            COLLAPSE: (prediction.route.expert, u[0]),
            LOAD: (prediction.route.expert, u[0]),
            LOW_MARGIN: (prediction.route.margin, u[1]),
            UNKNOWN: (log_odds(prediction.logits), u[2]),
        }
        for kind, (value, draw) in seen.items():
            self._evidence[kind].add(np.atleast_1d(self._ranks[kind].add(value, draw)))
        self.windows += 1
