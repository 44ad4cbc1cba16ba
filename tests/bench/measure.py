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
        ours, theirs: median seconds of a call. ratio: median of the turns' ratios ours / theirs; low and high: their
            quartiles. turns: how many. goal: what the ratio should be at most, or None.
    """

    name: str
    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    turns: int
    goal: float | None

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
            after = _seconds(theirs)
            pairs.append((_seconds(ours), after))
        else:
            pairs.append((_seconds(ours), _seconds(theirs)))
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


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
