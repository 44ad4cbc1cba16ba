"""`hardroute predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hardroute.runtime import errors
from hardroute.runtime.cli import options
from hardroute.runtime.cli.table import PredictionTable
from hardroute.runtime.cli.watch_options import AbstainBelow, open_abstain
from hardroute.runtime.clips import MAX_CLIPS, Spread
from hardroute.runtime.errors import ClipError
from hardroute.runtime.routelog import RouteRecord


def predict(
    bundle: options.BundleFolder,
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    log: options.Log = None,
    log_max_bytes: options.LogMaxBytes = None,
    log_keep: options.LogKeep = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print those JSON lines, not a table.")] = False,
    backend: options.BackendName = "cpu",
    threads: options.Threads = None,
    clips: Annotated[
        int, typer.Option(min=1, max=MAX_CLIPS, help="Clips of each video, spread over it; the mean answers.")
    ] = 1,
    allow_short: Annotated[bool, typer.Option(help="Take videos shorter than they claim.")] = False,
    abstain_below: AbstainBelow = None,
    digest: options.Digest = None,
    tolerance: options.Tolerance = None,
) -> None:
    """Classify videos. One that cannot be used costs an error line and exit code 2; the rest are answered."""
    if clips > 1 and abstain_below is not None:
        raise errors.HardrouteError("--abstain-below judges the route of one clip; leave it out with --clips")
    abstain = open_abstain(abstain_below)
    with options.open_log(log, log_max_bytes, log_keep) as route_log:
        engine = options.open_engine(bundle, backend, threads, digest, tolerance)
        Spread(engine.contract.seconds, clips)
        table = PredictionTable([video.name for video in videos], engine.classes, windows=clips > 1)
        failures = 0
        for video in videos:
            try:
                if clips > 1:
                    found = engine.predict_video(video, clips, allow_short=allow_short)
                    records, row = found.records(engine.bundle.digest), table.video(found)
                else:
                    prediction = engine.predict(video, allow_short=allow_short)
                    abstained = abstain is not None and abstain(prediction)
                    own = RouteRecord.from_prediction(prediction, engine.bundle.digest, abstained=abstained or None)
                    records, row = [own], table.row(prediction, abstained)
            except ClipError as error:
                failures += 1
                typer.echo(f"error: {error}", err=True)
                continue
            # Logged before it is shown: an answer that someone acted on must have its line.
            if route_log:
                for record in records:
                    route_log.append(record)
            typer.echo("\n".join(record.to_json() for record in records) if as_json else row)
    if failures:
        raise typer.Exit(errors.EXIT_BAD_INPUT)
