"""`hardroute predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hardroute.runtime.cli import options
from hardroute.runtime.cli.exit_codes import EXIT_BAD_INPUT
from hardroute.runtime.cli.from_settings import with_settings
from hardroute.runtime.cli.table import PredictionTable
from hardroute.runtime.cli.trust_file import TrustFile
from hardroute.runtime.clips import MAX_CLIPS, Spread, cage
from hardroute.runtime.delivery import Delivered, Delivery
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.inference import Engine, Prediction, VideoPrediction
from hardroute.runtime.routelog import with_receipts


@with_settings
def predict(
    *,
    bundle: options.BundleFolder,
    videos: Annotated[list[Path], typer.Argument(help="Video files.")],
    log: options.Log = None,
    log_settings: options.LogOptions,
    as_json: Annotated[bool, typer.Option("--json", help="Print those JSON lines, not a table.")] = False,
    backend: options.BackendName = "cpu",
    threads: options.Threads = None,
    clips: Annotated[
        int, typer.Option(min=1, max=MAX_CLIPS, help="Clips of each video, spread over it; the mean answers.")
    ] = 1,
    allow_short: Annotated[bool, typer.Option(help="Take videos shorter than they claim.")] = False,
    trusted: Annotated[bool, typer.Option(help="Decode in this process: the videos' maker is trusted.")] = False,
    abstain: options.AbstainOptions,
    digest: options.Digest = None,
    trust: TrustFile = None,
    tolerance: options.Tolerance = None,
) -> None:
    """Classify videos. One that cannot be used costs an error line and exit code 2; the rest are answered."""
    rule = options.open_abstain(abstain)
    if clips > 1 and rule:
        raise HardrouteError("--abstain-below judges the route of one clip; leave it out with --clips")
    if not trusted:
        cage.default.warm()  # its first child starts while the bundle is read
    with options.open_log(log, log_settings) as route_log:
        engine = options.open_engine(bundle, backend, threads, digest, tolerance, trust)
        Spread(engine.contract.seconds, clips)
        table = PredictionTable([video.name for video in videos], engine.classes, windows=clips > 1)
        delivery = Delivery(engine.bundle.digest, log=route_log, abstain=rule)
        failures = 0
        for video in videos:
            delivered = _answer(engine, delivery, video, clips, allow_short, trusted)
            if delivered.answer is None:
                failures += 1
                typer.echo(f"error: {delivered.error}", err=True)
            elif as_json:
                typer.echo("\n".join(with_receipts(delivered.records, delivered.receipts)))
            elif isinstance(delivered.answer, VideoPrediction):
                typer.echo(table.video(delivered.answer))
            else:
                typer.echo(table.row(delivered.answer, delivered.abstained))
    if failures:
        raise typer.Exit(EXIT_BAD_INPUT)


def _answer(
    engine: Engine, delivery: Delivery, video: Path, clips: int, allow_short: bool, trusted: bool
) -> Delivered[Prediction] | Delivered[VideoPrediction]:
    try:
        if clips > 1:
            several = engine.predict_video(video, clips, allow_short=allow_short, trusted=trusted)
        else:
            one = engine.predict(video, allow_short=allow_short, trusted=trusted)
    except Exception as error:
        failed = delivery.failure(error, clip=video.name).result()
        if isinstance(error, HardrouteError):
            return failed
        raise  # a bug keeps its traceback, and has its line
    return (delivery.answer(several) if clips > 1 else delivery.answer(one)).result()
