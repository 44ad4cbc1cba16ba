"""Proportions with their uncertainty: every accuracy the audit states comes with one of these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

CONFIDENCE = 0.95


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Two-sided Wilson score interval of a binomial proportion, as fractions in [0, 1].

    With p = successes / n and z the (1 + confidence) / 2 quantile of the standard normal,

        (p + z^2/2n  -+  z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927). Without observations (n = 0) nothing
    is known: (0, 1). Raises ValueError for counts that cannot be.
    """
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials cannot be")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the corners the formula gives 0 and 1 exactly, the arithmetic only nearly.
    low = 0.0 if successes == 0 else (centre - spread) / scale
    high = 1.0 if successes == n else (centre + spread) / scale
    return low, high


@dataclass(frozen=True)
class Proportion:
    """`successes` of `n`, with its two-sided Wilson interval.

    >>> str(Proportion(45, 60))
    '75.0 % (62.8 to 84.2, n = 60)'
    """

    successes: int
    n: int
    confidence: float = CONFIDENCE

    @classmethod
    def of(cls, outcomes: np.ndarray) -> Proportion:
        """From a vector of booleans."""
        outcomes = np.asarray(outcomes, dtype=bool)
        return cls(int(outcomes.sum()), outcomes.size)

    @property
    def share(self) -> float:
        """Fraction in [0, 1]; NaN without observations."""
        return self.successes / self.n if self.n else math.nan

    @property
    def low(self) -> float:
        return wilson(self.successes, self.n, self.confidence)[0]

    @property
    def high(self) -> float:
        return wilson(self.successes, self.n, self.confidence)[1]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: `share` is null without observations, as JSON knows no NaN."""
        return {
            "successes": self.successes,
            "n": self.n,
            "share": self.share if self.n else None,
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
        }

    def __str__(self) -> str:
        if not self.n:
            return "no clips"
        return f"{100 * self.share:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}, n = {self.n})"


def one_sided(first_only: int, second_only: int) -> float:
    """Sign test on paired outcomes: how probable at least `first_only` of all that differ, were both sides equal."""
    n = first_only + second_only
    return sum(math.comb(n, k) for k in range(first_only, n + 1)) / 2**n


def two_sided(first_only: int, second_only: int) -> float:
    """Exact McNemar test: how probable a difference at least this large, on either side, were both sides equal."""
    return min(1.0, 2 * one_sided(max(first_only, second_only), min(first_only, second_only)))


def load_of(routes: np.ndarray, experts: int) -> np.ndarray:
    """Fraction of the clips that each expert gets: routes (N,) int -> (experts,) float, sums to 1."""
    return np.bincount(np.asarray(routes, dtype=np.int64), minlength=experts) / max(len(routes), 1)


def load_entropy(load: np.ndarray) -> float:
    """Entropy of the expert load as a share of log M: 1 is even, 0 is one expert doing everything.

    A model with one expert has nothing to collapse and counts as 1.
    """
    load = np.asarray(load, dtype=np.float64)
    if load.size < 2:
        return 1.0
    used = load[load > 0]
    return float(max(0.0, -(used * np.log(used)).sum() / math.log(load.size)))
