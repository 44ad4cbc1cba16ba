"""`python -m tests.bench BUNDLE --only attacking --out FILE`: a table of ratios, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch loads

import typer
from rich.console import Console
from rich.table import Table

from runtime.errors import MethodError, main
from tests.bench.attacking import attacking
from tests.bench.decoding import decoding
from tests.bench.measure import Ratio
from tests.bench.serving import serving
from tests.bench.streaming import streaming
from tests.bench.subject import Subject

# A bench of another part is a module of its own and a row here.
BENCHES: dict[str, Callable[[Subject], list[Ratio]]] = {
    "serving": serving,
    "decoding": decoding,
    "streaming": streaming,
    "attacking": attacking,
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench(
    bundle: Annotated[Path, typer.Argument(help="bundle to measure")] = Path("models/zoo/motion"),
    only: Annotated[list[str] | None, typer.Option(help=f"some of: {', '.join(BENCHES)}; default all")] = None,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench-output/bench.json"),
) -> None:
    """Measure, print a table, write JSON."""
    names = only or list(BENCHES)
    for name in names:
        if name not in BENCHES:
            raise MethodError(f"unknown bench '{name}': choose some of {', '.join(BENCHES)}")
    with Subject.of(bundle) as subject:
        results = [ratio for name in names for ratio in BENCHES[name](subject)]
    Console(width=120).print(table(results, f"{bundle}, {os.cpu_count()} cores"))
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    tools = {name: version(name) for name in ("torch", "onnxruntime", "numpy")}
    out.parent.mkdir(parents=True, exist_ok=True)
    record = {"machine": machine, "tools": tools, "ratios": [r.as_dict() for r in results]}
    out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    typer.echo(f"JSON: {out}")


def table(results: list[Ratio], title: str) -> Table:
    shown = Table(title=title)
    for column in ("what", "unit", "ours", "theirs", "ratio", "quartiles", "goal"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    for r in results:
        quartiles = "" if r.low is None else f"{r.low:.3f} to {r.high:.3f}"
        goal = "" if r.goal is None else f"<= {r.goal}"
        shown.add_row(r.name, r.unit, f"{r.ours:.2f}", f"{r.theirs:.2f}", f"{r.ratio:.3f}", quartiles, goal)
    return shown


if __name__ == "__main__":
    main(app)
