"""One of so many windows of each source."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_SOURCES: Final = 4096


class Thinning:
    """Says of each window whether its turn has come: of each source the first one, and then one in `every`.

    Remembers the `MAX_SOURCES` that came last; one that was forgotten begins anew.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._turns: OrderedDict[str, int] = OrderedDict()

    def due(self, source: str) -> bool:
        """Takes the source's next window."""
        if self._every == 1:
            return True
        turn = self._turns.pop(source, 0)
        self._turns[source] = (turn + 1) % self._every
        if len(self._turns) > MAX_SOURCES:
            self._turns.popitem(last=False)
        return turn == 0
