"""What a child that reads a live source and its parent say to each other, over pipes."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Final

from hardroute.runtime.clips import ClipContract, Limits

# Kind and length of a message.
_HEAD: Final = struct.Struct("<cI")
_STAMP: Final = struct.Struct("<d")
OPENED, FRAME, END, ERROR = b"O", b"F", b"Z", b"E"
_MOST_TEXT: Final = 1 << 16


@dataclass(frozen=True)
class Task:
    """What a child is asked to read.

    target: a camera's number or a URL. name: for messages. timeout: seconds. contract: frames are fitted to it.
    """

    target: int | str
    name: str
    timeout: float
    contract: ClipContract
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> bytes:
        return json.dumps({**asdict(self), "contract": self.contract.model_dump()}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Task:
        fields: dict[str, Any] = json.loads(text)
        contract, limits = ClipContract(**fields.pop("contract")), Limits(**fields.pop("limits"))
        return cls(**fields, contract=contract, limits=limits)


def send(pipe: BinaryIO, kind: bytes, data: bytes = b"") -> None:
    """Writes one message."""
    pipe.write(_HEAD.pack(kind, len(data)) + data)
    pipe.flush()


def pack_frame(stamp: float, frame: bytes) -> bytes:
    """The data of a `FRAME`: its time, and its pixels or nothing."""
    return _STAMP.pack(stamp) + frame


def unpack_frame(data: bytes) -> tuple[float, memoryview]:
    """Undoes `pack_frame`."""
    return _STAMP.unpack_from(data)[0], memoryview(data)[_STAMP.size :]


class Receiver:
    """Reads messages from a pipe's file descriptor, each within a time limit.

    Args:
        frame_bytes: of one frame; a longer message is refused.
    """

    def __init__(self, descriptor: int, frame_bytes: int) -> None:
        self._descriptor = descriptor
        self._most = max(_MOST_TEXT, frame_bytes + _STAMP.size)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def receive(self, timeout: float) -> tuple[bytes, bytes]:
        """(kind, data) of the next message. Raises TimeoutError, or EOFError where the other side has gone."""
        deadline = time.monotonic() + timeout
        kind, length = _HEAD.unpack(self._exactly(_HEAD.size, deadline))
        if length > self._most:
            raise EOFError(f"a message of {length} bytes")
        return kind, self._exactly(length, deadline)

    def _exactly(self, length: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        while length:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise TimeoutError
            part = os.read(self._descriptor, length)
            if not part:
                raise EOFError("the pipe is closed")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)
