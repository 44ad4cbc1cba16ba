"""The options that `predict`, `stream` and `serve` share: what runs the networks, and where the routing log goes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from hardroute.runtime.backends import AUTO, BACKENDS
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.inference.engine import Engine
from hardroute.runtime.routelog import RouteLog

BundleFolder = Annotated[str, typer.Argument(help="Folder with manifest.json, or a shipped bundle's name.")]
BackendName = Annotated[str, typer.Option(help=f"What runs the networks: {', '.join([AUTO, *BACKENDS])}.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default: one per core.")]
Digest = Annotated[str | None, typer.Option(help="Refuse any bundle but the one with this digest.")]
Tolerance = Annotated[float | None, typer.Option(help="Logits may differ so much from the probes'.")]
Log = Annotated[Path | None, typer.Option(help="Append one JSON line per answered clip here.")]
LogMaxBytes = Annotated[int | None, typer.Option(help="Begin a new log file before one grows larger.")]
LogKeep = Annotated[int | None, typer.Option(help="Full log files that stay; default: all.")]


def open_engine(bundle: str, backend: str, threads: int | None, digest: str | None, tolerance: float | None) -> Engine:
    """`Engine.load`; which backend "auto" chose, and why, goes to stderr."""
    engine = Engine.load(bundle, backend, threads=threads, digest=digest, tolerance=tolerance)
    if backend == AUTO:
        typer.echo(engine.chosen_because, err=True)
    return engine


def open_log(path: Path | None, max_bytes: int | None, keep: int | None) -> AbstractContextManager[RouteLog | None]:
    """The log that `--log` asks for, if it does.

    Raises:
        HardrouteError: it cannot be written there, or options that concern a log that is not asked for.
    """
    if path is not None:
        return RouteLog(path, max_bytes=max_bytes, keep=keep)
    if max_bytes is not None or keep is not None:
        raise HardrouteError("--log-max-bytes and --log-keep say how a log is kept; name its file with --log")
    return nullcontext()
