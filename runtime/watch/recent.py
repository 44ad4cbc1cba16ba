"""What the traffic looks like lately, in the figures that alarms and metrics quote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hardroute.runtime.bundle.baseline import Baseline, log_odds
from hardroute.runtime.prediction import Prediction
from hardroute.runtime.watch.sequential_tests import RANKS

MEMORY: Final = 32  # windows; older ones fade
MAJORITY: Final = 0.5  # share of the recent windows that one expert answers in a collapse
_TENTH, _TWENTIETH = RANKS.index(0.1), RANKS.index(0.05)


class Recent:
    """Shares among the last windows, older ones fading; they start as in the baseline.

    Attributes:
        load: (M,) share of each expert.
        certified: (M,) the baseline's.
        margins: router margins that are low.
        unsure: log odds of the label that are low.
        sure: log odds of the label that are high.
    """

    def __init__(self, baseline: Baseline) -> None:
        self.load = self.certified = np.array(baseline.experts) / baseline.clips
        self.margins = Tail("a router margin below", baseline.margins)
        self.unsure = Tail("log odds of the label below", baseline.log_odds)
        self.sure = Tail("log odds of the label above", baseline.log_odds, upper=True)
        self._labels = np.zeros(len(baseline.labels))
        self._certified_labels = np.array(baseline.labels) / baseline.clips

    def add(self, prediction: Prediction) -> None:
        """Takes the next window."""
        mine = np.arange(len(self.load)) == prediction.route.expert
        self.load = self.load + (mine - self.load) / MEMORY
        self.margins.add(prediction.route.margin)
        odds = log_odds(prediction.logits)
        self.unsure.add(odds)
        self.sure.add(odds)
        self._labels[prediction.index] += 1

    @property
    def low_margin_share(self) -> float:
        """Share of router margins as a tenth of the certified clips have them."""
        return float(self.margins.shares[_TENTH])

    @property
    def odd_share(self) -> float:
        """Share of log odds as a tenth of the certified clips have them: half of those too low, half too high."""
        return float(self.unsure.shares[_TWENTIETH] + self.sure.shares[_TWENTIETH])

    @property
    def label_distance(self) -> float:
        """Total variation, in [0, 1], of the labels of all windows from the baseline's; 0 before the first."""
        if not self._labels.any():
            return 0.0
        return float(np.abs(self._labels / self._labels.sum() - self._certified_labels).sum() / 2)

    def describe(self, expert: int) -> str:
        """One line on an expert's load."""
        return (
            f"expert {expert} answers {self.load[expert]:.0%} of the windows lately, "
            f"{self.certified[expert]:.0%} of the certified clips"
        )


class Tail:
    """How many of the recent values are as extreme as a share tau of the certified ones, for each tau of `RANKS`.

    Args:
        what: how a text calls that.
        certified: ascending.
        upper: large values are extreme, not small ones.

    Attributes:
        shares: (len(RANKS),)
    """

    def __init__(self, what: str, certified: Sequence[float], upper: bool = False) -> None:
        self._what, self._sign = what, -1 if upper else 1
        # As the extreme values come first either way, one rule finds the bounds.
        ordered = self._sign * np.array(certified[::-1] if upper else certified)
        self._bounds = ordered[[min(int(rank * len(ordered)), len(ordered) - 1) for rank in RANKS]]
        self.shares = np.array(RANKS)

    def add(self, value: float) -> None:
        """Takes the next window's value."""
        self.shares = self.shares + ((self._sign * value < self._bounds) - self.shares) / MEMORY

    def describe(self, rank: int) -> str:
        """One line on the share at `RANKS[rank]`."""
        return (
            f"{self.shares[rank]:.0%} of the windows lately have {self._what} "
            f"{self._sign * self._bounds[rank]:.3g}, {RANKS[rank]:.0%} of the certified clips"
        )
