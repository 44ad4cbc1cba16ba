"""`hardroute info`."""

from __future__ import annotations

import typer

from hardroute.runtime.bundle import Bundle
from hardroute.runtime.cli import options
from hardroute.runtime.cli.table import describe


def info(bundle: options.BundleFolder) -> None:
    """Verify the digests of a bundle and say what is in it."""
    typer.echo(describe(Bundle.open(bundle)))
