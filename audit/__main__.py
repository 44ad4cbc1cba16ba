"""`python -m audit BUNDLE --data SET`: attack a bundle's twin, replay it in the runtime, decide by policy."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from audit.policy import Policy, shipped
from runtime import errors
from runtime.bundle import Bundle
from runtime.clips import ClipArrays, ClipSet, load_clips, open_set
from runtime.errors import BundleError, DataError, HardrouteError

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)
REFUSED = 1


@app.command()
def audit(
    bundle: Annotated[Path, typer.Argument(help="Folder with manifest.json and a PyTorch twin.")],
    data: Annotated[str, typer.Option(help="Labelled set: a folder with manifest.csv, or motion.")],
    policy: Annotated[str, typer.Option(help=f"TOML file, or one of {', '.join(shipped())}.")] = "standard",
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.")] = Path("audit-report"),
    limit: Annotated[int | None, typer.Option(min=1, help="Audit at most this many clips.")] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Run every attack on every clip: figures per attack, at more cost.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Attack in so many processes: same result.")] = 1,
) -> None:
    """Exit code 0: passed. 1: refused by the policy. 2: bad input, and nothing is written.

    An audit that was killed goes on where it was when it is started again in the same way.
    """
    opened = Bundle.open(bundle)
    rules = Policy.load(policy)
    if opened.manifest.twin is None:
        raise BundleError(f"bundle {bundle}: it has no PyTorch twin to attack; export it with one")
    clip_set = chosen_clips(open_set(data), opened, rules, limit)
    if out.exists() and not out.is_dir():
        raise HardrouteError(f"{out}: not a folder; choose another --out")

    # torch takes seconds to import; a wrong path should be answered at once.
    from audit import screen
    from audit.certify import WORK, certify

    started = time.perf_counter()
    with screen.progress() as show:
        clips = ordered(load_clips(clip_set, opened.manifest.contract, progress=show.decoding), opened)
        result = certify(opened, clips, rules, show.attacking, thorough, out / WORK, workers)
    written = result.write(out, clip_set.name, limit, time.perf_counter() - started)
    screen.verdict(result.verdict, written)
    if not result.verdict.passed:
        raise typer.Exit(REFUSED)


def chosen_clips(clip_set: ClipSet, bundle: Bundle, policy: Policy, limit: int | None) -> ClipSet:
    """The clips that the policy names. Raises DataError unless set and bundle have the same classes."""
    here, there = set(clip_set.classes), set(bundle.manifest.classes)
    if here != there:
        only = [
            f"only in the {side}: {', '.join(sorted(names)[:5])}"
            for side, names in (("set", here - there), ("bundle", there - here))
            if names
        ]
        raise DataError(f"{clip_set.name}: its classes are not those of the bundle ({'; '.join(only)})")
    count = min(policy.data.clips, limit or policy.data.clips)
    return clip_set.split(policy.data.split).take(count, policy.data.seed)


def ordered(clips: ClipArrays, bundle: Bundle) -> ClipArrays:
    """The same clips with labels that count in the bundle's order of classes."""
    classes = bundle.manifest.classes
    place = np.array([classes.index(name) for name in clips.classes])
    return replace(clips, labels=place[clips.labels], classes=classes)


if __name__ == "__main__":
    errors.main(app)
