"""What a client gets to read when it is turned away: a status and one line."""

from __future__ import annotations

from typing import Final

from hardroute.runtime.errors import HardrouteError

RETRY_SECONDS: Final = 1


class Refusal(HardrouteError):
    """A request that is not answered.

    Attributes:
        status: of HTTP. With 503 the client is told to come again after `RETRY_SECONDS`.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(RETRY_SECONDS)} if self.status == 503 else {}
