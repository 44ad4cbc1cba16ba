"""Several processes that attack chunks of one audit side by side, with the same result as one."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

from hardroute.models import VideoMoE

Result = TypeVar("Result")
Models = Mapping[str, VideoMoE]

# In a worker: its own copy of the models, built once.
_models: Models | None = None


class Workers:
    """A `Pool` of processes on this machine."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """See `hardroute.audit.execution.jobs.Pool`."""
        return self._pool.submit(_run, function, *arguments)


@contextmanager
def workers(count: int, build: Callable[[], Models]) -> Iterator[Workers | None]:
    """A pool of `count` processes in which `build` (a function that can be sent) gives the models; None for one.

    The processor's threads are shared out among them. They end with the block, and with a parent that is killed.
    """
    if count == 1:
        yield None
        return
    pool = ProcessPoolExecutor(
        count,
        # Not fork: torch's threads do not survive it.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(build, max(1, torch.get_num_threads() // count)),
    )
    try:
        yield Workers(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(build: Callable[[], Models], threads: int) -> None:
    global _models
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _models = build()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run(function: Callable[..., Result], *arguments: Any) -> Result:
    if _models is None:
        raise RuntimeError("a worker was asked before it had its models")
    return function(_models, *arguments)
