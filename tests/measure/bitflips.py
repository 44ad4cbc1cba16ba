"""`python -m tests.measure.bitflips BUNDLE --flips 200`: one wrong bit at a time; each must be refused."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hardroute import Engine
from hardroute.runtime.cli import main
from hardroute.runtime.errors import BundleError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Flip:
    """One bit that was turned over.

    Attributes:
        file: in which file of the bundle. byte, bit: where in it.
        refusal: what `Engine.load` said, or None: it loaded the bundle.
    """

    file: str
    byte: int
    bit: int
    refusal: str | None


def flip_bits(bundle: Path, flips: int, seed: int = 0) -> Iterator[Flip]:
    """Turns over `flips` random bits of a copy of the bundle, one after another, each file in its turn.

    The bundle itself stays as it is. The copy is loaded with each of them, and whole once before and after.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(bundle, Path(folder) / bundle.resolve().name))
        Engine.load(copy).close()
        files = sorted(path for path in copy.iterdir() if path.is_file())
        for turn in range(flips):
            path = files[turn % len(files)]
            byte, bit = int(rng.integers(path.stat().st_size)), int(rng.integers(8))
            _turn_over(path, byte, bit)
            yield Flip(path.name, byte, bit, _refusal(copy))
            _turn_over(path, byte, bit)
        Engine.load(copy).close()


def _turn_over(path: Path, byte: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1 << bit]))


def _refusal(bundle: Path) -> str | None:
    # Any other exception than this one comes through: a crash is no refusal.
    try:
        Engine.load(bundle).close()
    except BundleError as error:
        return str(error)
    return None


@app.command()
def bitflips(
    bundle: Annotated[Path, typer.Argument(help="Bundle; it is copied and stays as it is.")] = Path(
        "models/zoo/motion"
    ),
    flips: Annotated[int, typer.Option(min=1, help="How many bits, spread over all files.")] = 200,
    seed: Annotated[int, typer.Option(help="Which bits.")] = 0,
) -> None:
    """Exit code 0: every one was refused. 1: some were not; they are listed."""
    done = list(flip_bits(bundle, flips, seed))
    per_file, accepted = Counter(flip.file for flip in done), [flip for flip in done if flip.refusal is None]
    for name, count in sorted(per_file.items()):
        missed = sum(flip.file == name for flip in accepted)
        typer.echo(f"{name:20} {count:4} flips, {count - missed:4} refused")
    for flip in accepted:
        typer.echo(f"accepted: {flip.file}, byte {flip.byte}, bit {flip.bit}")
    typer.echo(f"{len(done)} flips in {len(per_file)} files: {len(done) - len(accepted)} refused, seed {seed}")
    if accepted:
        raise typer.Exit(1)


if __name__ == "__main__":
    main(app)
