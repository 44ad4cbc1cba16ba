"""`python -m tests.measure.peers speed|agree`, in the environment that `make bench-peers` makes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch loads

import typer
from rich.console import Console
from rich.table import Table

from hardroute.runtime.cli import main
from tests.measure.bench.report import report
from tests.measure.bench.subject import Subject
from tests.measure.peers.agree import PROBLEMS, autoattack, plain
from tests.measure.peers.libraries import LIBRARIES
from tests.measure.peers.speed import speed

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command("speed")
def speed_command(
    bundle: Annotated[Path, typer.Argument(help="bundle whose twin is attacked")] = Path("models/zoo/motion"),
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench-output/peers.json"),
) -> None:
    """Time PGD-10 against every library; say how far their x_adv is from ours without a random start."""
    with Subject.of(bundle) as subject:
        ratios, agreement = speed(subject)
    shown = Table(title="x_adv next to ours, no random start")
    for column in ("whose", "largest difference", "pixels > 1e-6 apart", "labels apart"):
        shown.add_column(column)
    for name, apart in agreement.items():
        shown.add_row(name, *(f"{apart[key]:.1e}" for key in ("largest", "pixels_apart", "labels_apart")))
    Console(width=120).print(shown)
    report(ratios, str(bundle), ("torch", "numpy", *LIBRARIES), out, agreement=agreement)


@app.command("agree")
def agree_command(
    images: Annotated[int, typer.Option(help="images per problem", min=1)] = 200,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench-output/agree.json"),
) -> None:
    """Compare AutoAttack's verdicts with torchattacks', and FGSM's and PGD's clips with every library's."""
    found = {"plain": plain(), "autoattack": [autoattack(classes, eps, images) for classes, eps in PROBLEMS]}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    Console(width=120).print_json(data=found)
    typer.echo(f"JSON: {out}")


if __name__ == "__main__":
    main(app)
