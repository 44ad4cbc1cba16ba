"""`python -m tests.measure.bench BUNDLE --only attacking --out FILE`: a table of ratios, and the same as JSON."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch loads

import typer

from hardroute.runtime.cli import main
from hardroute.runtime.errors import MethodError
from tests.measure.bench.attacking import attacking
from tests.measure.bench.decoding import decoding
from tests.measure.bench.measure import Ratio
from tests.measure.bench.report import report
from tests.measure.bench.serving import serving, sized
from tests.measure.bench.streaming import streaming
from tests.measure.bench.subject import Subject
from tests.measure.bench.training import training

# A bench of another part is a module of its own and a row here.
BENCHES: dict[str, Callable[[Subject], list[Ratio]]] = {
    "serving": serving,
    "width-16": partial(sized, "width 16, 12x48x48"),
    "width-32": partial(sized, "width 32, 16x112x112"),
    "decoding": decoding,
    "streaming": streaming,
    "attacking": attacking,
    "training": training,
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
    report(results, str(bundle), ("torch", "onnxruntime", "numpy"), out)


if __name__ == "__main__":
    main(app)
