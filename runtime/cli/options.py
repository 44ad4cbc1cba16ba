"""The options that `predict`, `stream` and `serve` share: networks, routing log, watch, abstaining."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from hardroute.runtime.backends import AUTO, BACKENDS
from hardroute.runtime.bundle import Bundle
from hardroute.runtime.cli.from_settings import Options
from hardroute.runtime.cli.trust_file import load_trust
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.inference import Engine
from hardroute.runtime.routelog import LogSettings, RouteLog
from hardroute.runtime.watch import Abstain, Alarm, Watch, WatchSettings

BundleFolder = Annotated[str, typer.Argument(help="Folder with manifest.json, or a shipped bundle's name.")]
BackendName = Annotated[str, typer.Option(help=f"What runs the networks: {', '.join([AUTO, *BACKENDS])}.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; default: one per core.")]
Digest = Annotated[
    str | None, typer.Option(help="Refuse any bundle but the one with this digest, as `info` prints it.")
]
Tolerance = Annotated[float | None, typer.Option(help="Logits may differ so much from the probes'.")]
Log = Annotated[Path | None, typer.Option(help="Append one JSON line per answered clip here.")]
LogOptions = Annotated[LogSettings, Options("log_")]
Wanted = Annotated[
    bool | None,
    typer.Option("--watch/--no-watch", help="Compare traffic with the certified clips; default: if it is certified."),
]
WatchOptions = Annotated[
    WatchSettings, Options(names={"every": "watch_every", "refresh": "watch_refresh"}, without=("seed",))
]
AbstainOptions = Annotated[
    Abstain, Options(names={"margin": "abstain_below", "probability": "abstain_below_probability"})
]


def open_engine(
    bundle: str, backend: str, threads: int | None, digest: str | None, tolerance: float | None, trust: Path | None
) -> Engine:
    """`Engine.load`; which backend "auto" chose, and why, goes to stderr."""
    believed = load_trust(trust)
    engine = Engine.load(bundle, backend, threads=threads, digest=digest, tolerance=tolerance, trust=believed)
    if backend == AUTO:
        typer.echo(engine.chosen_because, err=True)
    return engine


def say_standing(bundle: Bundle) -> None:
    """Who certified what, or that nobody was asked, on stderr."""
    mend = "" if bundle.vouched else "; --trust asks for a signature"
    typer.echo(f"{'' if bundle.vouched else 'warning: '}the bundle is {bundle.standing}{mend}", err=True)


def open_log(path: Path | None, settings: LogSettings) -> AbstractContextManager[RouteLog | None]:
    """The log that `--log` asks for, if it does.

    Raises:
        HardrouteError: it cannot be written there, or options that concern a log that is not asked for.
    """
    if path is not None:
        return RouteLog(path, **dict(settings))
    if settings != LogSettings():
        raise HardrouteError("--log-... options say how a log is kept; name its file with --log")
    return nullcontext()


def open_watch(bundle: Bundle, wanted: bool | None, settings: WatchSettings) -> Watch | None:
    """The watch that the options ask for; its alarms go to stderr.

    Raises:
        BundleError: it is wanted and there is no certificate, or there is one that is not valid.
    """
    if wanted is False or (wanted is None and bundle.certificate() is None):
        return None
    return Watch.from_bundle(bundle, on_alarm=_say, **dict(settings))


def open_abstain(rule: Abstain) -> Abstain | None:
    """The rule, if it withholds anything."""
    return None if rule == Abstain() else rule


def _say(alarm: Alarm) -> None:
    typer.echo(f"alarm {alarm.kind}: {alarm.text}", err=True)
