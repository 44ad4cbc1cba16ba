"""The processes of a torchrun as a pool: rank 0 is the audit, and every rank, rank 0 too, attacks chunks for it.

What travels are arrays in main memory, so gloo carries it on any device; each process has a device of its own.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from hardroute.models import VideoMoE
from hardroute.runtime.errors import HardrouteError

Result = TypeVar("Result")
Models = Mapping[str, VideoMoE]
Build = Callable[[], Models]
# torchrun ends all processes when one fails, so nobody needs to give up waiting.
PATIENCE = timedelta(days=30)
STOP = None


def world() -> tuple[int, int]:
    """(rank, number of processes) as torchrun set them; (0, 1) outside of it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


class Ranks:
    """A `Pool`. A chunk goes to whichever rank is free, so the order of results decides nothing."""

    def __init__(self, build: Build, peers: Mapping[int, dist.ProcessGroup]) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[Any], tuple[Any, ...]] | None] = queue.SimpleQueue()
        askers: list[Callable[[], Callable[..., Any]]] = [lambda: _local(build)]
        askers += [lambda r=rank, g=group: _remote(build, r, g) for rank, group in peers.items()]  # type: ignore[misc]
        # Daemons: where this audit fails, none of them may keep it from ending.
        self._threads = [threading.Thread(target=self._ask, args=(each,), daemon=True) for each in askers]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """See `hardroute.audit.execution.jobs.Pool`."""
        future: Future[Result] = Future()
        self._jobs.put((future, (function, *arguments)))
        return future

    def close(self) -> None:
        """Lets the ranks go when all that was submitted is done."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _ask(self, connect: Callable[[], Callable[..., Any]]) -> None:
        failed: Exception | None = None
        try:
            ask = connect()
        except Exception as error:  # told to whoever waits for a result
            failed = error
        while (job := self._jobs.get()) is not None:
            future, call = job
            try:
                if failed:
                    raise failed
                future.set_result(ask(*call))
            except Exception as error:
                future.set_exception(error)
        if not failed:
            ask(STOP)


@contextmanager
def ranks(build: Build) -> Iterator[Ranks]:
    """In rank 0: the pool of all ranks, in each of which `build` (a function that can be sent) gives the models.

    Within, a result of a rank that has ended raises HardrouteError.
    """
    pool = Ranks(build, _join())
    yield pool
    # Not in a `finally`: a failed audit does not wait for its ranks, which torchrun ends.
    pool.close()
    dist.destroy_process_group()


def serve() -> None:
    """In every other rank: does what rank 0 asks until it says stop, or ends."""
    rank, _ = world()
    group = _join()[rank]
    try:
        models = None
        while (call := _receive(0, group)) is not STOP:
            try:
                function, *arguments = call
                if models is None:
                    models, answer = function(), None
                else:
                    answer = function(models, *arguments)
            except Exception as error:  # rank 0 says what went wrong
                _send((False, error), 0, group)
            else:
                _send((True, answer), 0, group)
    except RuntimeError:
        return  # rank 0 is gone, and said why
    dist.destroy_process_group()


def _join() -> dict[int, dist.ProcessGroup]:
    """A group of rank 0 and each other rank: a thread of rank 0 for each can then wait on its own."""
    rank, size = world()
    dist.init_process_group("gloo", timeout=PATIENCE)
    pairs = {other: dist.new_group([0, other], timeout=PATIENCE) for other in range(1, size)}
    return pairs if rank == 0 else {rank: pairs[rank]}


def _local(build: Build) -> Callable[..., Any]:
    # A copy of its own: the audit freezes and counts on the one it was started with.
    models = build()
    return lambda function, *arguments: function(models, *arguments) if function else None


def _remote(build: Build, rank: int, group: dist.ProcessGroup) -> Callable[..., Any]:
    def ask(*call: Any) -> Any:
        try:
            if call[0] is STOP:
                return _send(STOP, rank, group)
            _send(call, rank, group)
            well, answer = _receive(rank, group)
        except RuntimeError:
            raise HardrouteError(
                f"process {rank} of this torchrun has ended; start it again in the same way: it goes on where it was"
            ) from None
        if not well:
            raise answer
        return answer

    ask(build)
    return ask


def _send(what: Any, rank: int, group: dist.ProcessGroup) -> None:
    dist.send_object_list([what], rank, group)


def _receive(rank: int, group: dist.ProcessGroup) -> Any:
    box: list[Any] = [None]
    dist.recv_object_list(box, rank, group)
    return box[0]
