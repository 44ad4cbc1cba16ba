"""Pieces of an audit's work, done here or by another process that shares the journal, each once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import numpy as np

from hardroute.audit.execution.journal import Journal, Member

Result = TypeVar("Result")
PAUSE: Final = 0.02  # seconds between two looks at whether another process is done


@dataclass(frozen=True)
class Job(Generic[Result]):
    """One attack on a few clips.

    Attributes:
        name, eps, clips: what its result is kept under: see `hardroute.audit.execution.journal.Journal`.
        run: does it.
    """

    name: str
    eps: float
    clips: np.ndarray
    run: Callable[[], Result]


def carry_out(
    jobs: Sequence[Job[Result]],
    kind: type[Result],
    journal: Journal | None,
    before: Callable[[Job[Result]], None] = lambda job: None,
) -> Iterator[tuple[Job[Result], Result]]:
    """Yields each job with its result, in order; what the journal holds is taken from there, and what is new kept.

    In processes that share the journal, each does what no other has begun, then waits for the rest: whoever is faster
    does more, and all of them yield the same.

    Args:
        kind: of the results: a dataclass of arrays.
        before: called with each job before its result is waited for.

    Raises:
        HardrouteError: the journal cannot be written, or another process has failed or ended.
        ToldElsewhere: the same, in a process that does not report.
    """
    results: list[Result | None] = [None] * len(jobs)
    if journal and journal.member:
        for place, job in enumerate(jobs):
            before(job)
            results[place] = _unless_begun(job, kind, journal, journal.member)
    for place, job in enumerate(jobs):
        before(job)
        result, results[place] = results[place], None
        if result is None and journal and journal.member:
            result = _awaited(job, kind, journal, journal.member)
        elif result is None:
            result = (_found(job, kind, journal) if journal else None) or _done(job, journal)
        yield job, result


def _found(job: Job[Result], kind: type[Result], journal: Journal) -> Result | None:
    return journal.find(job.name, job.eps, job.clips, kind)


def _done(job: Job[Result], journal: Journal | None) -> Result:
    result = job.run()
    if journal:
        journal.keep(job.name, job.eps, job.clips, result)
    return result


def _unless_begun(job: Job[Result], kind: type[Result], journal: Journal, member: Member) -> Result | None:
    """The result; None while another process is at it."""
    found = _found(job, kind, journal)
    if found is not None:
        return found
    with journal.claim(job.name, job.eps, job.clips, member) as claim:
        if claim is None:
            return None
        # Looked up once more: it may have been kept between the look and the claim.
        found = _found(job, kind, journal)
        if found is None:
            with claim.at_work():
                found = _done(job, journal)
        return found


def _awaited(job: Job[Result], kind: type[Result], journal: Journal, member: Member) -> Result:
    """The result, whoever does the job."""
    while (found := _unless_begun(job, kind, journal, member)) is None:
        time.sleep(PAUSE)
    return found
