"""Several processes that attack chunks of one evaluation side by side, with the same result as one."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait

import numpy as np
import torch

from audit.attacks import find_attack
from audit.attacks.loop import frozen
from audit.chunk import attack_chunk
from audit.cost import counted
from audit.journal import Unit
from models import VideoMoE

# In a worker: its own copy of the model, built once.
_model: VideoMoE | None = None


class Workers:
    """A pool of processes that each hold the model; attacks are named, as they cannot be sent."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def submit(
        self, name: str, radius: float, x: np.ndarray, y: np.ndarray, smallest: np.ndarray, steps: int, seed: int
    ) -> Future[Unit]:
        """As `audit.chunk.attack_chunk` with the attack `name` of ATTACKS, later; arrays in place of tensors."""
        return self._pool.submit(_attack, name, radius, x, y, smallest, steps, seed)


@contextmanager
def workers(count: int, build: Callable[[], VideoMoE]) -> Iterator[Workers | None]:
    """A pool of `count` processes in which `build` (a function that can be sent) gives the model; None for one.

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


def _begin(build: Callable[[], VideoMoE], threads: int) -> None:
    global _model
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _model = build()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _attack(
    name: str, radius: float, x: np.ndarray, y: np.ndarray, smallest: np.ndarray, steps: int, seed: int
) -> Unit:
    if _model is None:
        raise RuntimeError("a worker was asked before it had its model")
    with frozen(_model), counted(_model) as passes:
        return attack_chunk(
            _model,
            find_attack(name),
            name,
            radius,
            torch.from_numpy(x),
            torch.from_numpy(y),
            smallest,
            steps,
            seed,
            passes,
        )
