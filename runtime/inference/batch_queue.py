"""Which clips run next: waiting lines before the router and before each expert. No threads, no clock of its own."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Job(Generic[T]):
    """Items for one run of a network: of the expert of that index, or of the router (None)."""

    expert: int | None
    items: list[T]


class Queues(Generic[T]):
    """Items wait for the router, and then for their expert.

    Args:
        experts: how many there are.
        max_batch: items in one job, at most.
        max_wait: seconds that an item waits for others of its expert.
    """

    def __init__(self, experts: int, max_batch: int, max_wait: float) -> None:
        self._max_batch, self._max_wait = max_batch, max_wait
        self._arrived: deque[T] = deque()
        self._routed: list[deque[tuple[float, T]]] = [deque() for _ in range(experts)]
        self._turn = 0

    def arrive(self, item: T) -> None:
        """A new item waits for the router."""
        self._arrived.append(item)

    def route(self, expert: int, item: T, now: float) -> None:
        """The router has run; the item waits for its expert from `now` (seconds) on."""
        self._routed[expert].append((now, item))

    def next(self, now: float, hurry: bool = False) -> Job[T] | None:
        """Takes out what should run now; None: nothing yet, see `due`.

        Routing comes first, so that the experts' batches fill. But it has turns: what arrived since the turn began
        waits until every expert whose items are due has run, so that no expert starves.

        Args:
            hurry: no item waits for others any more.
        """
        # A full batch gains nothing by waiting.
        for expert, line in enumerate(self._routed):
            if len(line) >= self._max_batch:
                return self._run(expert)
        if self._turn and self._arrived:
            return self._router()
        first = min((line[0][0], expert) for expert, line in enumerate(self._routed) if line) if self._waits else None
        if first and ((hurry and not self._arrived) or now >= first[0] + self._max_wait):
            return self._run(first[1])
        self._turn = len(self._arrived)
        return self._router() if self._arrived else None

    def due(self) -> float | None:
        """When `next` will have something if nothing else comes; None: not before something comes."""
        return min(line[0][0] for line in self._routed if line) + self._max_wait if self._waits else None

    def take_arrived(self) -> list[T]:
        """Takes out all that wait for the router."""
        taken = list(self._arrived)
        self._arrived.clear()
        return taken

    @property
    def _waits(self) -> bool:
        return any(self._routed)

    def _router(self) -> Job[T]:
        items = [self._arrived.popleft() for _ in range(min(self._max_batch, len(self._arrived)))]
        self._turn = max(0, self._turn - len(items))
        return Job(None, items)

    def _run(self, expert: int) -> Job[T]:
        line = self._routed[expert]
        return Job(expert, [line.popleft()[1] for _ in range(min(self._max_batch, len(line)))])
