"""What the lines of a log add up to, in one pass and bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from hardroute.runtime.errors import LogError
from hardroute.runtime.routelog.chain import MalformedLine, count_of, parse
from hardroute.runtime.routelog.files import open_files
from hardroute.runtime.routelog.record import goes_back

QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

# A log that somebody forged may hold any number of them.
_MAX_EXPERTS: Final = 256
_MAX_NAMES: Final = 1000  # labels, events, alarms
_MAX_PARTS: Final = 10_000  # a year of hours
_BINS: Final = 1000  # of the margin's histogram: quantiles are good to 0.001

Part = Literal["file", "hour", "day"]


@dataclass
class Summary:
    """A log in figures.

    Attributes:
        files, lines: how many were read; of the lines, `clips` are answers, `unreadable` are no line of a log, and
            the others are counted by name in `events`.
        first, last: earliest and latest time of any line, UTC.
        experts: how many the longest `weights` has.
        load: (256,) clips that each expert answered; `parts` the same for each file, hour or day, as they come.
        margins: (1000,) histogram over [0, 1].
        low_margin: clips whose margin is below the threshold.
        abstained, alarms: clips without an answer; alarms by name.
        lost, torn: lines that the log says could not be written, or were cut off by a crash.
        clock_back: lines whose time is more than a second before that of the line before.
        latest: time of the line read last.
    """

    files: int = 0
    lines: int = 0
    clips: int = 0
    unreadable: int = 0
    first: datetime | None = None
    last: datetime | None = None
    experts: int = 0
    load: np.ndarray = field(default_factory=lambda: _zeros(_MAX_EXPERTS))
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    margins: np.ndarray = field(default_factory=lambda: _zeros(_BINS))
    low_margin: int = 0
    abstained: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    torn: int = 0
    clock_back: int = 0
    latest: datetime | None = None

    @property
    def seconds(self) -> float:
        """From the first line to the last."""
        return (self.last - self.first).total_seconds() if self.first and self.last else 0.0

    @property
    def clips_per_second(self) -> float | None:
        return self.clips / self.seconds if self.seconds > 0 else None

    @property
    def entropy(self) -> float:
        """Of the load, as a share of the greatest possible; 1 for one expert."""
        shares = shares_of(self.load[: self.experts])
        used = shares[shares > 0]
        return float(-(used * np.log(used)).sum() / math.log(self.experts)) if self.experts > 1 else 1.0

    def margin_quantiles(self) -> dict[float, float]:
        """Margin below which such a share of the clips lies, to 0.001; empty without clips."""
        if not self.clips:
            return {}
        below = np.cumsum(self.margins)
        return {q: float(np.searchsorted(below, q * self.clips) + 0.5) / _BINS for q in QUANTILES}


def shares_of(load: np.ndarray) -> np.ndarray:
    """(M,) share of the clips that each expert has of a load (M,); zeros where there are no clips."""
    return load / max(1, load.sum())


def drift(load: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Total variation distance of two loads (M,), in [0, 1], and what chance alone makes of it on the mean.

    Of n clips from one distribution p, an expert's share is off by sqrt(2 p (1 - p) / (pi n)) on the mean.
    """
    clips = max(1, load.sum()), max(1, reference.sum())
    pooled = shares_of(load + reference)
    chance = np.sqrt(2 / math.pi * pooled * (1 - pooled) * (1 / clips[0] + 1 / clips[1])).sum() / 2
    return float(np.abs(shares_of(load) - shares_of(reference)).sum() / 2), float(chance)


def summarise(paths: Sequence[str | Path], *, part: Part = "hour", low_margin: float = 0.1) -> Summary:
    """Reads a log without checking its chain.

    Args:
        paths: as of `verify_log`.
        part: what `Summary.parts` has a load for.
        low_margin: margin below which a clip counts as low.

    Raises:
        LogError: a file cannot be read, or there are more than 10,000 parts.
    """
    summary = Summary()
    for log in open_files([Path(path) for path in paths]):
        summary.files += 1
        for line in log.lines():
            summary.lines += 1
            try:
                _add(summary, parse(line.data), log.path, part, low_margin)
            except (MalformedLine, KeyError, TypeError, ValueError, OverflowError):
                summary.unreadable += 1
    return summary


def _add(summary: Summary, fields: dict[str, Any], path: Path, part: Part, low_margin: float) -> None:
    time, alarms = datetime.fromisoformat(fields["time"]).astimezone(UTC), fields.get("alarms") or []
    if not isinstance(alarms, list):
        raise TypeError
    if "event" in fields:
        _count(summary.events, str(fields["event"]))
    else:
        expert, margin, weights = fields["expert"], float(fields["margin"]), fields["weights"]
        if not isinstance(weights, list) or not 0 <= margin <= 1:
            raise ValueError
        if type(expert) is not int or not 0 <= expert < len(weights) <= _MAX_EXPERTS:
            raise ValueError
        name = path.name if part == "file" else time.strftime("%Y-%m-%d" if part == "day" else "%Y-%m-%d %H:00")
        if name not in summary.parts and len(summary.parts) == _MAX_PARTS:
            raise LogError(f"route log: more than {_MAX_PARTS} parts; take each day or file as one")
        _count(summary.labels, str(fields["label"]))
        summary.clips += 1
        summary.experts = max(summary.experts, len(weights))
        summary.load[expert] += 1
        summary.parts.setdefault(name, _zeros(_MAX_EXPERTS))[expert] += 1
        summary.margins[min(int(margin * _BINS), _BINS - 1)] += 1
        summary.low_margin += margin < low_margin
        summary.abstained += fields.get("abstained") is True
    for alarm in alarms:
        _count(summary.alarms, str(alarm))
    summary.clock_back += summary.latest is not None and goes_back(summary.latest, time)
    summary.latest = time
    summary.first = min(summary.first or time, time)
    summary.last = max(summary.last or time, time)
    summary.lost += count_of(fields, "lost")
    summary.torn += "torn" in fields


def _count(counter: Counter[str], name: str) -> None:
    counter[name[:200] if name[:200] in counter or len(counter) < _MAX_NAMES else "(others)"] += 1


def _zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.int64)
