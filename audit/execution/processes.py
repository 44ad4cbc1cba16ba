"""Several processes on this machine that attack together, with the same result as one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait

import torch

from hardroute.audit.execution.journal import Member, ToldElsewhere

_log = logging.getLogger(__name__)


@contextmanager
def workers(count: int, work: Callable[[Member], object]) -> Iterator[Member]:
    """Within: `count` - 1 other processes are at `work`, and share a journal with this one.

    The processor's threads are shared out among them. They end with the block, and with a parent that is killed.

    Args:
        work: can be sent to another process, where it is called with what it is to share the journal as.
    """
    threads = torch.get_num_threads()
    share = max(1, threads // count)
    # Not fork: torch's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    run = uuid.uuid4().hex
    others = [
        context.Process(target=_begin, args=(work, Member(f"worker {n}", run, reports=False), share), daemon=True)
        for n in range(1, count)
    ]
    for each in others:
        each.start()
    torch.set_num_threads(share)
    try:
        yield Member("the process that started the others", run, reports=True)
    finally:
        torch.set_num_threads(threads)
        for n, each in enumerate(others, 1):
            if each.exitcode:
                _log.warning("worker %d ended before the attacks did, with exit code %d", n, each.exitcode)
            # Whatever it is at, nobody waits for it any more.
            each.terminate()
        for each in others:
            each.join()


def _begin(work: Callable[[Member], object], member: Member, threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        work(member)
    except ToldElsewhere:
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
