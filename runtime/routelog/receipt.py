"""What whoever is answered gets of the line that was written: enough to hold the log to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Self

from hardroute.runtime.routelog.chain import Head
from hardroute.runtime.routelog.record import Record


class Receipt(str):
    """The head after a line: as text the SHA-256 of the line's bytes, hex. Line `seq` must have that hash for ever.

    Attributes:
        seq: number of the line.
    """

    seq: int

    def __new__(cls, head: Head) -> Self:
        self = super().__new__(cls, head.hash)
        self.seq = head.seq
        return self


def with_receipts(records: Sequence[Record], receipts: Sequence[Receipt]) -> list[str]:
    """The records as one JSON object each, as clients get them: with `seq` and `head` first.

    Args:
        receipts: of their lines, in the same order; fewer or none where there is no log.
    """
    return [
        body if receipt is None else f'{{"seq": {receipt.seq}, "head": "{receipt}", {body[1:]}'
        for body, receipt in itertools.zip_longest((record.to_json() for record in records), receipts[: len(records)])
    ]
