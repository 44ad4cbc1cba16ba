"""The options of `serve`, `stream` and `predict` that concern watching and abstaining."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hardroute.runtime.watch.abstain import Abstain
from hardroute.runtime.watch.watch import Alarm, Watch

if TYPE_CHECKING:
    from hardroute.runtime.bundle.bundle import Bundle

Wanted = Annotated[
    bool | None,
    typer.Option("--watch/--no-watch", help="Compare traffic with the certified clips; default: if it is certified."),
]
FalseAlarm = Annotated[float, typer.Option(help="Highest chance of a false alarm per compared window.")]
Every = Annotated[int, typer.Option(help="The watch compares one of so many windows of each source.")]
AbstainBelow = Annotated[
    float | None, typer.Option(min=0, max=1, help="Withhold answers with a smaller router margin.")
]


def open_watch(bundle: Bundle, wanted: bool | None, false_alarm: float, every: int) -> Watch | None:
    """The watch that the options ask for; its alarms go to stderr.

    Raises:
        BundleError: it is wanted and there is no certificate, or there is one that is not valid.
        HardrouteError: numbers that make no sense.
    """
    if wanted is False or (wanted is None and bundle.certificate() is None):
        return None
    return Watch.from_bundle(bundle, false_alarm=false_alarm, on_alarm=_say, every=every)


def open_abstain(below: float | None) -> Abstain | None:
    """The rule that `--abstain-below` asks for."""
    return None if below is None else Abstain(margin=below)


def _say(alarm: Alarm) -> None:
    typer.echo(f"alarm {alarm.kind}: {alarm.text}", err=True)
