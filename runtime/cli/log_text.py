"""What `python -m runtime log` shows a person, or a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from hardroute.runtime.files import printable
from hardroute.runtime.routelog.summary import Summary, drift, shares_of
from hardroute.runtime.routelog.verify import Report

_ROWS: Final = 48


def describe_report(report: Report) -> str:
    """The breaks or "ok", then one fact a line; the head comes last."""
    lines = [f"broken: {printable(what)}" for what in report.breaks]
    if report.broken > len(report.breaks):
        lines.append(f"broken: and {report.broken - len(report.breaks)} more")
    if not report.broken:
        reach = f", seq {report.first} to {report.head.seq}" if report.first else ""
        lines.append(f"ok: {_many(report.lines, 'line')} in {_many(report.files, 'file')}{reach}")
    if report.first and report.first > 1:
        why = "`keep` removed" if report.first <= report.oldest else "nobody gave"
        lines.append(f"chain starts at seq {report.first}: {why} the lines before it, and they are not checked")
    if report.tail:
        lines.append(f"torn: {report.tail} bytes after the last line, in flight or cut off by a crash; not a line")
    if report.signed:
        rest = report.head.seq - report.signed_seq
        after = f"; {_many(rest, 'line')} after it" if rest > 0 else ""
        lines.append(f"signed: {_many(report.signed, 'checkpoint')} agree, the last of seq {report.signed_seq}{after}")
    if report.older:
        lines.append(f"older: {_many(report.older, 'checkpoint')} of lines before the first one, not compared")
    lines += [f"remark: {printable(what)}" for what in report.remarks]
    for count, what in (
        (report.clock_back, "clock: it went back before {} lines"),
        (report.displaced, "displaced: before {} lines the file had been moved, deleted or emptied"),
        (report.torn, "torn: {} lines were cut off by a crash; the line after each says so"),
        (report.lost, "lost: {} records could not be written; the line after them says so"),
        (report.unsynced, "unsynced: {} lines may have missed the disk; a later line says so"),
    ):
        if count:
            lines.append(what.format(count))
    # The end of a broken chain is nothing to trust later.
    return "\n".join(lines) + ("" if report.broken else f"\nhead {report.head}")


def as_dict(found: Summary, certified: Sequence[int] | None = None) -> dict[str, Any]:
    """A summary for `--json`; names and units as in docs/routing-log.md. `certified`: clips of each expert."""
    parts = [
        {"part": name, "clips": int(load.sum()), "load": _round(shares_of(load)), "drift": far, "chance": chance}
        for name, load, far, chance in _drifts(found, certified)
    ]
    return {
        "files": found.files,
        "lines": found.lines,
        "clips": found.clips,
        "first": found.first.isoformat() if found.first else None,
        "last": found.last.isoformat() if found.last else None,
        "seconds": found.seconds,
        "clips_per_second": found.clips_per_second,
        "load": _round(shares_of(found.load[: found.experts])),
        "entropy": round(found.entropy, 4),
        "margin": {str(q): round(value, 4) for q, value in found.margin_quantiles().items()},
        "low_margin": found.low_margin / max(1, found.clips),
        "abstained": found.abstained,
        "labels": dict(found.labels.most_common()),
        "alarms": dict(found.alarms.most_common()),
        "events": dict(found.events.most_common()),
        "lost": found.lost,
        "torn": found.torn,
        "clock_back": found.clock_back,
        "unreadable": found.unreadable,
        "drift_against": "baseline" if certified else "first part",
        "parts": parts,
    }


def describe_summary(found: Summary, certified: Sequence[int] | None = None) -> str:
    """A summary as text: one fact a line, then the load of each part."""
    rate = f", {found.clips_per_second:.3g} clips/s" if found.clips_per_second else ""
    span = f"{found.first:%Y-%m-%d %H:%M:%S} to {found.last:%Y-%m-%d %H:%M:%S} UTC{rate}" if found.first else "no line"
    quantiles = "  ".join(f"{q:.0%} {value:.3f}" for q, value in found.margin_quantiles().items())
    facts = {
        "lines": f"{found.lines} in {_many(found.files, 'file')}; {_many(found.clips, 'clip')}",
        "time": span,
        "load": f"{_shares(found.load[: found.experts])}, entropy {found.entropy:.2f} of 1" if found.clips else "",
        "margin": f"{quantiles}, low {found.low_margin / max(1, found.clips):.1%}" if quantiles else "",
        "labels": _counts(found.labels),
        "abstained": str(found.abstained or ""),
        "alarms": _counts(found.alarms),
        "events": _counts(found.events),
        "lost": str(found.lost or ""),
        "torn": str(found.torn or ""),
        "clock": f"went back before {_many(found.clock_back, 'line')}" if found.clock_back else "",
        "unreadable": str(found.unreadable or ""),
    }
    lines = [f"{name:<10} {value}" for name, value in facts.items() if value]
    # Names come from whoever wrote the log; on a terminal they must stay text on one line.
    parts = [(printable(name), load, far, chance) for name, load, far, chance in _drifts(found, certified)]
    if len(parts) > 1 or certified:
        against = "the certified load" if certified else "the first"
        lines += ["", f"load by part, with its distance from {against} (and what chance alone would make of it)"]
        lines += ["..."] * (len(parts) > _ROWS)
        wide = max((len(name) for name, *_ in parts[-_ROWS:]), default=0)
        lines += [
            f"{name:<{wide}}  {int(load.sum()):>8} clips  {_shares(load)}  drift {far:.3f} ({chance:.3f})"
            for name, load, far, chance in parts[-_ROWS:]
        ]
    return "\n".join(lines)


def _drifts(found: Summary, certified: Sequence[int] | None) -> Iterator[tuple[str, np.ndarray, float, float]]:
    experts = max(found.experts, len(certified or ()))
    reference = None if certified is None else np.pad(np.array(certified, np.int64), (0, experts - len(certified)))
    for name, load in found.parts.items():
        reference = load[:experts] if reference is None else reference
        far, chance = drift(load[:experts], reference)
        yield name, load[:experts], round(far, 4), round(chance, 4)


def _shares(load: np.ndarray) -> str:
    return "/".join(f"{share:.0%}" for share in shares_of(load))


def _counts(counter: Counter[str]) -> str:
    shown = ", ".join(f"{printable(name)} {count}" for name, count in counter.most_common(20))
    return shown + (", ..." if len(counter) > 20 else "")


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" + "s" * (count != 1)


def _round(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
