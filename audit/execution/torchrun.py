"""The processes of a torchrun attack together: they share a journal on disk, and rank 0 is the audit.

Each runs the same evaluation on a device of its own. Over the network goes a number that names the run, and the word
that all are done.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist

from hardroute.audit.execution.journal import Member, ToldElsewhere
from hardroute.runtime.cli import EXIT_BAD_INPUT
from hardroute.runtime.errors import HardrouteError

# torchrun ends all processes when one fails, so nobody needs to give up waiting.
PATIENCE: Final = timedelta(days=30)


def world() -> tuple[int, int]:
    """(rank, number of processes) as torchrun set them; (0, 1) outside of it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def join() -> None:
    """Waits until every process is here; the second time, does nothing.

    Rank 0 comes when it has read all that it was given, so that what is wrong with it is said once; the others come
    first of all. Raises HardrouteError in rank 0 if another process has ended; where rank 0 has, the others do too.
    """
    if not dist.is_initialized():
        with _ending_with_the_others():
            dist.init_process_group("gloo", timeout=PATIENCE)


@contextmanager
def together() -> Iterator[Member]:
    """Within: every rank is at the same work, and shares a journal with the others. Raises as `join` does."""
    rank, _ = world()
    join()
    run = torch.tensor(secrets.randbits(63))  # that of rank 0 is everybody's
    with _ending_with_the_others():
        dist.broadcast(run, src=0)
    try:
        yield Member(f"process {rank} of this torchrun", str(int(run)), reports=rank == 0)
    except ToldElsewhere:
        # Rank 0 will find the same; were this process to end before, torchrun would end rank 0 before it can say so.
        _await_all()
        raise
    # Rank 0 goes on to report and clears the journal away, which the others may still be reading.
    _await_all()
    dist.destroy_process_group()


def _await_all() -> None:
    with _ending_with_the_others():
        dist.barrier()


@contextmanager
def _ending_with_the_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError:
        if world()[0]:
            sys.exit(EXIT_BAD_INPUT)  # rank 0 is gone, and said why
        raise HardrouteError(
            "a process of this torchrun has ended; start it again in the same way: it goes on where it was"
        ) from None
