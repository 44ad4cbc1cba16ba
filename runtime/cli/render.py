"""`hardroute render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hardroute.runtime.datasets import motion

_EXAMPLE = motion.MotionSpec().text


def render(
    spec: Annotated[str, typer.Argument(help=f'A motion set: "motion", which is "{_EXAMPLE}", or with other numbers.')],
    out: Annotated[Path, typer.Option(help="New folder for the videos and their manifest.csv.")],
) -> None:
    """Render a procedural motion set as video files."""
    motion.render(spec, out)
    typer.echo(f"rendered {spec} in {out}")
