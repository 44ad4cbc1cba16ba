"""How a bench is shown: a table for people, JSON for machines."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.measure.bench.measure import Ratio


def report(results: Sequence[Ratio], title: str, tools: Sequence[str], out: Path, **more: Any) -> None:
    """Print the ratios; write them to `out` with machine, versions of `tools` and whatever else is given."""
    Console(width=120).print(table(results, f"{title}, {os.cpu_count()} cores"))
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": machine,
        "tools": {name: version(name) for name in tools},
        "ratios": [r.as_dict() for r in results],
        **more,
    }
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"JSON: {out}")


def table(results: Sequence[Ratio], title: str) -> Table:
    shown = Table(title=title)
    for column in ("what", "unit", "ours", "theirs", "ratio", "quartiles", "goal"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    for r in results:
        quartiles = "" if r.low is None else f"{r.low:.3f} to {r.high:.3f}"
        goal = "" if r.goal is None else f"<= {r.goal}"
        shown.add_row(r.name, r.unit, f"{r.ours:.2f}", f"{r.theirs:.2f}", f"{r.ratio:.3f}", quartiles, goal)
    return shown
