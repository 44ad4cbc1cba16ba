"""How a stream is cut, read and held back."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from hardroute.runtime.clips import ClipContract, Limits
from hardroute.runtime.errors import HardrouteError

Policy = Literal["block", "drop-oldest"]
# Where neither the caller nor the contract says.
DEFAULT_SECONDS = 2.0
# More overlap than this costs memory and answers nothing new.
MAX_OVERLAP = 64
# No camera is faster. A source that states more frames is a bomb.
MAX_FPS = 1000.0
# A frame stays on display for this long or a window, whichever is longer; beyond it the clock has jumped.
MAX_HOLD = 10.0
_LONGEST_PAUSE = 86_400.0


@dataclass(frozen=True)
class Reconnect:
    """How a live source that stalls, ends or cannot be opened is tried again.

    Attributes:
        first, longest: seconds before the first try, and at most; each pause is twice the one before, and up to half
            of it is left out at random, so that many sources of one server do not come back all at once.
        attempts: tries in a row without a frame until the source is given up; None: for ever.
    """

    first: float = 0.5
    longest: float = 30.0
    attempts: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.longest <= _LONGEST_PAUSE:  # also refuses NaN
            found = f"first {self.first:g} and longest {self.longest:g}"
            raise HardrouteError(f"reconnect: needs 0 <= first <= longest <= {_LONGEST_PAUSE:g} seconds, got {found}")
        if self.attempts is not None and self.attempts < 0:
            raise HardrouteError(f"reconnect: attempts must not be negative; None: no end; got {self.attempts}")


@dataclass(frozen=True)
class StreamSettings:
    """Of one source.

    Attributes:
        seconds: length of a window; None: the contract's, or `DEFAULT_SECONDS` where that takes whole videos.
        stride: seconds from a window's start to the next one's; None: `seconds`, so that windows touch.
        policy: what happens when answers come slower than windows. "block": the reader waits, nothing is lost.
            "drop-oldest": the window that has waited longest is given up and counted, so that answers stay fresh.
            None: "block" for files, "drop-oldest" for live sources.
        depth: windows that may wait.
        ahead: windows that may be under way in the batcher at a time.
        limits: `max_bytes` and `max_pixels` hold as for clips, `max_frames` within one window. Playing time and time
            for decoding have no bound here.
        timeout: seconds that opening, or waiting for one frame, may take.
        reconnect: of live sources.
        loop: start a file or folder anew when it ends, for ever.
    """

    seconds: float | None = None
    stride: float | None = None
    policy: Policy | None = None
    depth: int = 8
    ahead: int = 4
    limits: Limits = field(default_factory=lambda: Limits(max_bytes=2**63 - 1))
    timeout: float = 5.0
    reconnect: Reconnect = Reconnect()
    loop: bool = False

    def __post_init__(self) -> None:
        for name in ("seconds", "stride", "timeout"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 < value <= 3600):
                raise HardrouteError(f"stream: {name} must be above 0 and at most 3600, got {value:g}")
        if self.policy not in (None, "block", "drop-oldest"):
            raise HardrouteError(f"stream: unknown policy {self.policy!r}; known: block, drop-oldest")
        if self.depth < 1 or self.ahead < 1:
            raise HardrouteError("stream: depth and ahead must be at least 1")

    def window(self, contract: ClipContract) -> tuple[float, float]:
        """(seconds, stride) under this contract. Raises HardrouteError if windows would overlap too much."""
        seconds = self.seconds or contract.seconds or DEFAULT_SECONDS
        stride = self.stride or seconds
        if seconds / stride > MAX_OVERLAP:
            raise HardrouteError(
                f"stream: windows of {seconds:g} s every {stride:g} s overlap more than {MAX_OVERLAP} times; "
                "take a larger stride"
            )
        return seconds, stride
