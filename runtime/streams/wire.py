"""What a child that reads a stream and its parent say to each other, over pipes."""

from __future__ import annotations

import json
import math
import os
import select
import struct
import time
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final

import numpy as np

from hardroute.runtime.clips import ClipContract, Limits
from hardroute.runtime.streams.cutting import Manner, Step
from hardroute.runtime.streams.windows import Cut

# Kind and length of a message.
_HEAD: Final = struct.Struct("<cI")
READY, OPENED, STEP, END, ERROR = b"R", b"O", b"S", b"Z", b"E"
_MOST_TEXT: Final = 1 << 16
# frames, corrupt, jumps, milliseconds; number, start and end of the window, if its frames follow.
_STEP: Final = struct.Struct("<qqqdqdd")


@dataclass(frozen=True)
class Task:
    """What a child is asked to read.

    Attributes:
        target: a camera's number, a URL, or None for a file that the child has open.
        demuxer: of the file. timeout: seconds that opening, or one wait for data, may take.
        redirects: whether a server may send on to another host or port.
    """

    target: int | str | None
    manner: Manner
    timeout: float
    demuxer: str = ""
    redirects: bool = False

    def to_json(self) -> bytes:
        fields = asdict(self)
        fields["manner"]["contract"] = self.manner.contract.model_dump()
        return json.dumps(fields).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Task:
        fields: dict[str, Any] = json.loads(text)
        manner = fields.pop("manner")
        manner["contract"], manner["limits"] = ClipContract(**manner["contract"]), Limits(**manner["limits"])
        return cls(**fields, manner=Manner(**manner))


def send(pipe: BinaryIO, kind: bytes, data: bytes = b"") -> None:
    """Writes one message."""
    pipe.write(_HEAD.pack(kind, len(data)) + data)
    pipe.flush()


def pack_step(step: Step) -> bytes:
    """The data of a `STEP`."""
    cut, spent = step.cut, step.milliseconds or 0.0
    place = (cut.number, cut.start, cut.end) if cut else (-1, 0.0, 0.0)
    head = _STEP.pack(step.frames, step.corrupt, step.jumps, spent, *place)
    return head + (cut.frames.tobytes() if cut else b"")


def unpack_step(data: bytes, contract: ClipContract) -> Step:
    """Undoes `pack_step`. Raises ValueError for what no step is: a child may have been turned by what it reads."""
    if len(data) < _STEP.size:
        raise ValueError("a step cut short")
    frames, corrupt, jumps, spent, number, start, end = _STEP.unpack_from(data)
    if min(frames, corrupt, jumps) < 0 or not all(map(math.isfinite, (spent, start, end))):
        raise ValueError("counts and times")
    step = Step(frames, corrupt, jumps, None, spent)
    if number >= 0:
        pixels = np.frombuffer(data, np.uint8, offset=_STEP.size)
        step.cut = Cut(number, start, end, pixels.reshape(contract.frames, contract.height, contract.width, 3))
    return step


class Receiver:
    """Reads messages from a pipe's file descriptor, each within a time limit.

    Args:
        window_bytes: of one window's frames; a longer message is refused.
    """

    def __init__(self, descriptor: int, window_bytes: int) -> None:
        self._descriptor = descriptor
        self._most = max(_MOST_TEXT, window_bytes + _STEP.size)
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
