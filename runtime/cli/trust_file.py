"""The option that names a trust, and its environment variable, for every verb that loads a bundle to use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from hardroute.runtime.bundle import Trust

TrustFile = Annotated[
    Path | None,
    typer.Option("--trust", help="TOML file that says whose signatures count, and for what.", envvar="HARDROUTE_TRUST"),
]


def load_trust(path: Path | None) -> Trust | None:
    """The trust in that file, if one is named. Raises TrustError."""
    if path is None:
        return None
    # Its cryptography is only loaded where there is one.
    from hardroute.runtime.bundle import Trust

    return Trust.load(path)
