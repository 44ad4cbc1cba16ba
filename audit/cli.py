"""`python -m audit BUNDLE --data SET`: attack a bundle's twin, replay it in the runtime, decide by policy."""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hardroute.audit.bundles import open_sources, require_twin
from hardroute.audit.clip_selection import chosen_clips, once_each, ordered, require_unseen
from hardroute.audit.policy import Policy, shipped
from hardroute.runtime.bundle import Bundle, find_bundle
from hardroute.runtime.datasets import load_clips, open_set
from hardroute.runtime.errors import AuditError, HardrouteError

REFUSED = 1
BROKEN = 3

# What is wrong with what was given, how commands end themselves, and a part of the installation that is missing.
_NO_CRASH = (HardrouteError, typer.Exit, typer.Abort, ModuleNotFoundError)


@contextmanager
def _a_crash_is_no_verdict() -> Iterator[None]:
    """Python ends with 1 where an exception is not caught, and 1 says that a policy refused."""
    try:
        yield
    except AuditError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(BROKEN) from None
    except _NO_CRASH:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        traceback.print_exception(error)
        what = HardrouteError(f"{type(error).__name__}: {error}")
        print(f"error: the audit broke, so nothing was judged ({what})", file=sys.stderr)
        raise typer.Exit(BROKEN) from None


@_a_crash_is_no_verdict()
def audit(
    bundle: Annotated[str, typer.Argument(help="Folder with manifest.json and a PyTorch twin, or a shipped name.")],
    data: Annotated[str, typer.Option(help="Labelled set: a folder with manifest.csv, or motion.")],
    policy: Annotated[str, typer.Option(help=f"TOML file, or one of {', '.join(shipped())}.")] = "standard",
    out: Annotated[Path, typer.Option(help="Folder for report.json and report.html.")] = Path("audit-report"),
    limit: Annotated[int | None, typer.Option(min=1, help="Audit at most this many clips.")] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Run every attack on every clip: figures per attack, at more cost.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Attack in so many processes: same result.")] = 1,
    attack_precision: Annotated[
        str, typer.Option(help="Show attacks the twin in fp32 or bf16: faster where there is bf16, and no certificate.")
    ] = "fp32",
    device: Annotated[str, typer.Option(help="Attack the twin on cpu, cuda or cuda:N.")] = "cpu",
    backend: Annotated[str, typer.Option(help="Replay the bundle in this backend of the runtime.")] = "cpu",
    source: Annotated[
        list[str] | None, typer.Option(help="NAME=BUNDLE whose adversarial clips are shown too; may be repeated.")
    ] = None,
    undefended: Annotated[
        list[str] | None, typer.Option(help="The same for a bundle trained without a defence: it must fall.")
    ] = None,
    attach: Annotated[
        bool, typer.Option("--attach", help="Put the certificate into the bundle; if refused, an old one goes.")
    ] = False,
) -> None:
    """Exit code 0: passed. 1: refused by the policy. 2: bad input, and nothing is written. 3: the audit itself broke.

    An audit that was killed goes on where it was when it is started again in the same way. Under torchrun, its
    processes take the place of --workers.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank:
        from hardroute.audit.execution.torchrun import join

        join()
    if size > 1 and workers > 1:
        raise HardrouteError("--workers: torchrun has started the processes already; leave it out")
    if attach and limit is not None:
        raise HardrouteError("--attach: an audit with --limit certifies nothing; leave one of them out")
    if attach and attack_precision != "fp32":
        raise HardrouteError("--attach: only attacks in fp32 certify; leave --attack-precision out")
    folder = find_bundle(bundle)
    if attach and not os.access(folder, os.W_OK):
        raise HardrouteError(f"--attach: no permission to write into {folder}")
    opened = Bundle.open(folder)
    rules = Policy.load(policy)
    require_twin(opened)
    plain, others = undefended or [], source or []
    sources = open_sources([*plain, *others], opened)
    clip_set = chosen_clips(open_set(data), opened, rules, limit)
    _require_folder(out)

    # torch takes seconds to import; a wrong path should be answered at once.
    from hardroute.audit import console as screen
    from hardroute.audit.certify import assist, certify
    from hardroute.audit.execution.device import open_device
    from hardroute.audit.execution.precision import require_precision
    from hardroute.audit.plan import Plan
    from hardroute.audit.report import certificate, write
    from hardroute.audit.result import WORK, Means

    open_device(device)
    require_precision(attack_precision, device)
    means = Means(
        thorough=thorough,
        sources=sources,
        undefended=tuple(sources)[: len(plain)],
        work=out / WORK,
        processes=workers,
        precision=attack_precision,
        device=device,
        backend=backend,
    )
    if rank:
        clips, _ = once_each(ordered(load_clips(clip_set, opened.manifest.contract), opened), clip_set.name)
        return assist(opened, clips, rules, means)
    started = time.perf_counter()
    with screen.progress() as show:
        decoding = show.phase("decoding clips")
        loaded = load_clips(clip_set, opened.manifest.contract, progress=decoding)
        clips, copies = once_each(ordered(loaded, opened), clip_set.name)
        require_unseen(clips, opened, clip_set.name)
        plan = Plan.of(opened, clips, rules, means, data=clip_set.name, limit=limit, copies=copies)
        plan = plan.going_on(out)
        if attach and plan.shortfalls:
            raise HardrouteError(f"--attach: this audit certifies nothing: {'; '.join(plan.shortfalls)}")
        result = certify(opened, clips, rules, replace(means, progress=show.phase), before=partial(plan.write, out))
    plan.require_unchanged(opened, clips, clip_set, Policy.load(policy))
    written = write(result, out, plan, time.perf_counter() - started)
    screen.verdict(result.verdict, plan, written)
    if attach:
        screen.attached(certificate.attach(opened, out / certificate.NAME))
    if not result.verdict.passed:
        raise typer.Exit(REFUSED)


def _require_folder(out: Path) -> None:
    """Raises HardrouteError unless `out` is a folder that can be written into, or can become one."""
    try:
        there = next(each for each in (out, *out.absolute().parents) if each.exists())
    except OSError as error:
        raise HardrouteError(f"{out}: {error.strerror}; choose another --out") from None
    if not there.is_dir():
        raise HardrouteError(f"{there}: not a folder; choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise HardrouteError(f"{there}: no permission to write there; choose another --out")
