"""Times rivals turn by turn in one run, so that a busy neighbour slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """One comparison.

    Attributes:
        name: what was compared, and on what.
        ours, theirs: the two quantities (of times: the median call), in `unit`.
        ratio: ours / theirs (of times: the median of the turns' ratios; low and high: their quartiles).
        turns: how many were timed; 0 where the quantities are counted. goal: what `ratio` should be at most, or None.
    """

    name: str
    ours: float
    theirs: float
    ratio: float
    unit: str = "ms"
    low: float | None = None
    high: float | None = None
    turns: int = 0
    goal: float | None = None

    @classmethod
    def counted(cls, name: str, ours: float, theirs: float, unit: str, goal: float | None = None) -> Ratio:
        """Of two quantities that no neighbour can disturb, such as passes or bytes."""
        return cls(name, ours, theirs, ours / theirs, unit, goal=goal)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], *, goal: float | None = None, turns: int = 15
) -> Ratio:
    """Call both `turns` times, alternating which goes first; each once before, to warm up."""
    ours()
    theirs()
    pairs = []
    for turn in range(turns):
        if turn % 2:
            after = _milliseconds(theirs)
            pairs.append((_milliseconds(ours), after))
        else:
            pairs.append((_milliseconds(ours), _milliseconds(theirs)))
    ratios = sorted(a / b for a, b in pairs)
    low, _, high = statistics.quantiles(ratios, n=4)
    return Ratio(
        name=name,
        ours=statistics.median(a for a, _ in pairs),
        theirs=statistics.median(b for _, b in pairs),
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        turns=turns,
        goal=goal,
    )


def _milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)
