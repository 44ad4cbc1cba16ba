"""Evidence for a change, gathered by betting against uniform p-values from every window on.

**Bet.** "From now on, a share s of the windows has p <= tau, and the others are as certified" pays
f(p) = 1 - s + s [p <= tau] / tau on a stake of 1. For uniform p its mean is 1: a fair bet. If the statement is true
the stake grows at the best rate there is (it is the likelihood ratio). Nobody knows s, tau and the time of the change,
so there is one bet for each s and tau of a grid, and each is started anew at every window.

**Sum over starts.** R_t = f(p_t) (1 + R_t-1) is what all starts of one bet hold together (Shiryaev and Roberts; an
"e-detector": Shin, Ramdas and Rinaldo, 2023). R_t - t is a martingale while nothing has changed, and so is the mean of
several bets on the same p. By Doob's inequality

    P(R reaches A within N windows) <= N / A      for every N and A.

**Several p-values.** Streams of p-values that depend on each other are not averaged: each gets its own R and a
threshold higher by their number, and the chances add up.
"""

from __future__ import annotations

from typing import Final

import numpy as np

RANKS: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_LARGEST: Final = 1e300


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
