"""`hardroute stream`."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Annotated

import typer

from hardroute.runtime.cli import options
from hardroute.runtime.cli.exit_codes import EXIT_BAD_INPUT
from hardroute.runtime.cli.from_settings import Options, with_settings
from hardroute.runtime.cli.trust_file import TrustFile
from hardroute.runtime.files import printable
from hardroute.runtime.routelog import with_receipts
from hardroute.runtime.streams import Hub, Reconnect, StreamCounts, StreamEvent, StreamSettings, spelled_out

_NAME_WIDTH = 40


@with_settings
def stream(
    *,
    bundle: options.BundleFolder,
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders, camera:0, rtsp:// and http:// addresses, @FILE, env:NAME."),
    ],
    settings: Annotated[StreamSettings, Options(without=("limits", "reconnect"))],
    reconnect: Annotated[Reconnect, Options("reconnect_")],
    log: options.Log = None,
    log_settings: options.LogOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print those JSON lines, not a table.")] = False,
    max_batch: Annotated[int, typer.Option(min=1, help="Windows that run together.")] = 8,
    max_wait: Annotated[float, typer.Option(min=0, help="Seconds that a window waits for others.")] = 0.005,
    backend: options.BackendName = "cpu",
    threads: options.Threads = None,
    digest: options.Digest = None,
    trust: TrustFile = None,
    tolerance: options.Tolerance = None,
    watch: options.Wanted = None,
    watch_settings: options.WatchOptions,
    abstain: options.AbstainOptions,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many windows.")] = None,
) -> None:
    """Classify videos without end, window by window; many at a time. Ctrl-C ends it.

    What happens to a source is said on stderr, and at the end what became of its windows. A source that cannot be used
    does not stop the others; it costs exit code 2.
    """
    settings = settings.changed(reconnect=reconnect)
    with ExitStack() as stack:
        route_log = stack.enter_context(options.open_log(log, log_settings))
        engine = stack.enter_context(options.open_engine(bundle, backend, threads, digest, tolerance, trust))
        options.say_standing(engine.bundle)
        hub = Hub(
            engine,
            log=route_log,
            watch=options.open_watch(engine.bundle, watch, watch_settings),
            abstain=options.open_abstain(abstain),
            max_batch=max_batch,
            max_wait=max_wait,
        )
        # Called once the hub is closed, so that every window is accounted for, however the loop ends.
        stack.callback(_report, hub)
        stack.enter_context(hub)
        names = [hub.add(source, settings) for word in sources for source in spelled_out(word)]
        show = _show_json if as_json else partial(_show, width=min(max(map(len, names)), _NAME_WIDTH))
        failed, seen = False, 0
        for event in hub:
            failed |= event.error is not None and event.kind != "source-lost"
            show(event)
            seen += event.kind == "window"
            if limit and seen >= limit:
                break
    if failed:
        raise typer.Exit(EXIT_BAD_INPUT)


def _show_json(event: StreamEvent) -> None:
    for line in with_receipts(event.records, event.receipts):
        typer.echo(line)


def _show(event: StreamEvent, width: int) -> None:
    name = printable(event.source)
    # The end of a path tells more than its beginning.
    column = name if len(name) <= width else f"...{name[3 - width :]}"
    if event.dropped:
        typer.echo(f"{name}: {event.dropped} windows dropped", err=True)
    if event.kind in ("source-lost", "source-back"):
        typer.echo(f"{event.kind}: {event.error or name}", err=True)
    elif event.error:
        # Most say of themselves which file or address they are about.
        where = "" if event.error.startswith(event.source) else f"{name}: "
        typer.echo(f"error: {where}{event.error}", err=True)
    elif event.prediction:
        prediction, spent = event.prediction, event.prediction.milliseconds
        typer.echo(
            f"{column:<{width}}  {event.start:>9.2f} - {event.end:<9.2f}  "
            f"{'abstained' if event.abstained else prediction.label}  "
            f"{prediction.probability:.3f}  expert {prediction.route.expert}  margin {prediction.route.margin:.3f}  "
            f"{spent.decode + spent.route + spent.expert:.1f} ms"
        )


def _report(hub: Hub) -> None:
    for name, counts in hub.counts.items():
        typer.echo(f"{printable(name)}: {_summary(counts)}", err=True)
    stats = hub.batcher.stats
    typer.echo(f"{stats.answered} windows in {stats.expert_batches} runs, {stats.mean_batch:.1f} a run", err=True)


def _summary(counts: StreamCounts) -> str:
    text = f"{counts.windows} windows, {counts.answered} answered, {counts.failed} failed, {counts.dropped} dropped"
    rest = {
        "corrupt frames": counts.corrupt,
        "withheld": counts.abstained,
        "videos or connections lost": counts.unusable,
        "jumps of the clock": counts.jumps,
        "reconnects": counts.reconnects,
    }
    return ", ".join([text, *(f"{count} {what}" for what, count in rest.items() if count)])
