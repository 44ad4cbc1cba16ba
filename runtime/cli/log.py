"""`python -m runtime log`: check a routing log, and say what is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hardroute.runtime.cli.log_text import as_dict, describe_report, describe_summary
from hardroute.runtime.cli.trust_file import TrustFile, load_trust
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.routelog.chain import parse_head
from hardroute.runtime.routelog.summary import Part, summarise
from hardroute.runtime.routelog.verify import verify_log

EXIT_BROKEN = 1

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

Files = Annotated[
    list[Path], typer.Argument(help="The log: its rotated files are found. Or several files: then just those.")
]


@app.command()
def verify(
    files: Files,
    head: Annotated[str | None, typer.Option(help="HASH[:SEQ] noted earlier: its line must still be there.")] = None,
    start: Annotated[int, typer.Option(help="Older lines lie elsewhere: the log may begin with this seq.", min=1)] = 1,
    key: Annotated[
        list[Path] | None, typer.Option(help="Public key (PEM) of the log: its checkpoints are checked too.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="File with checkpoints kept elsewhere; needs --key.")
    ] = None,
) -> None:
    """Check that no line was changed, dropped, put in, repeated or moved.

    Exit code 0: the log is whole; 1: it is broken; 2: it cannot be read. Prints the head: keep it where whoever writes
    the log cannot, for a log that was cut short is otherwise as good as a shorter one. Or keep one of the checkpoints
    that the log signs, and give it here.
    """
    if checkpoint and not key:
        raise HardrouteError("--checkpoint says nothing without the log's public key; give that with --key")
    report = verify_log(
        files, head=parse_head(head) if head else None, start=start, keys=key or (), checkpoints=checkpoint or ()
    )
    typer.echo(describe_report(report))
    if report.broken:
        raise typer.Exit(EXIT_BROKEN)


@app.command()
def summary(
    files: Files,
    by: Annotated[str, typer.Option(help="file, hour or day: what the load is shown for.")] = "hour",
    low_margin: Annotated[float, typer.Option(help="Margin below which a clip counts as low.", min=0, max=1)] = 0.1,
    baseline: Annotated[Path | None, typer.Option(help="Bundle whose certified load is compared with.")] = None,
    trust: TrustFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not text.")] = False,
) -> None:
    """Say what the lines add up to: load, margins, labels, drift, and what was lost. Does not check the chain."""
    if by not in ("file", "hour", "day"):
        raise HardrouteError(f"--by {by!r} is not one of file, hour, day")
    part: Part = by  # type: ignore[assignment]
    certified = _certified_load(baseline, trust) if baseline else None
    found = summarise(files, part=part, low_margin=low_margin)
    typer.echo(json.dumps(as_dict(found, certified), indent=1) if as_json else describe_summary(found, certified))


def _certified_load(bundle: Path, trust: Path | None) -> list[int]:
    # A log can be read where no bundle ever was; only this needs to know what one is.
    from hardroute.runtime.bundle import Bundle
    from hardroute.runtime.watch import Watch

    believed, opened = load_trust(trust), Bundle.open(bundle)
    if believed is not None:
        opened = believed.verify(opened)
    return list(Watch.from_bundle(opened).baseline.experts)
