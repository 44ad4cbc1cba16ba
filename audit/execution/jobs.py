"""Pieces of an audit's work, done here or elsewhere, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from hardroute.audit.execution.journal import Journal

Result = TypeVar("Result")


class Pool(Protocol):
    """Processes that each hold the audit's models by name."""

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """`function(models, *arguments)` in one of them, later; both must be such that they can be sent."""


@dataclass(frozen=True)
class Job(Generic[Result]):
    """One attack on a few clips.

    Attributes:
        name, eps, some: what it is kept under: see `hardroute.audit.execution.journal.Journal`.
        here: does it. function, arguments: what a pool is to do instead, with the same result.
    """

    name: str
    eps: float
    some: np.ndarray
    here: Callable[[], Result]
    function: Callable[..., Result]
    arguments: Callable[[], tuple[Any, ...]]


def carry_out(
    jobs: Sequence[Job[Result]],
    kind: type[Result],
    journal: Journal | None,
    pool: Pool | None,
    before: Callable[[Job[Result]], None] = lambda job: None,
) -> Iterator[tuple[Job[Result], Result]]:
    """Yields each job with its result, in order; what the journal holds is taken from there, and what is new kept.

    `before`: called with each job before its result is waited for.
    """
    new = [not (journal and journal.has(job.name, job.eps, job.some)) for job in jobs]
    coming = [
        pool.submit(job.function, *job.arguments()) if pool and due else None
        for job, due in zip(jobs, new, strict=True)
    ]
    for job, due, future in zip(jobs, new, coming, strict=True):
        before(job)
        result = journal.find(job.name, job.eps, job.some, kind) if journal and not due else None
        if result is None:
            result = future.result() if future else job.here()
            if journal:
                journal.keep(job.name, job.eps, job.some, result)
        yield job, result
