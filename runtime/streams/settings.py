"""How a stream is cut, read and held back."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from hardroute.runtime.clips import ClipContract, Limits
from hardroute.runtime.errors import StreamError
from hardroute.runtime.settings import Settings

Policy = Literal["block", "drop-oldest"]
# Where neither the caller nor the contract says.
DEFAULT_SECONDS = 2.0
# More overlap than this costs memory and answers nothing new.
MAX_OVERLAP = 64
# No camera is faster. A source that states more frames is a bomb.
MAX_FPS = 1000.0
# A frame stays on display for this long or a window, whichever is longer; beyond it the clock has jumped.
MAX_HOLD = 10.0

_Seconds = Annotated[float, Field(gt=0, le=3600)]
_Pause = Annotated[float, Field(ge=0, le=86_400)]
_Count = Annotated[int, Field(ge=1)]


class Reconnect(Settings):
    """How a live source that stalls, ends or cannot be opened is tried again. Raises SettingsError.

    Attributes:
        first, longest: seconds before the first try, and at most; each pause is twice the one before, and up to half
            of it is left out at random, so that many sources of one server do not come back all at once.
        attempts: tries in a row without a frame until the source is given up; None: for ever.
    """

    what: ClassVar[str] = "reconnect"

    first: _Pause = Field(0.5, description="Seconds until a live source that is lost is tried again.")
    longest: _Pause = Field(30.0, description="Seconds between its tries, at most; each pause is twice the one before.")
    attempts: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Tries in a row until a live source is given up; default: for ever."
    )

    @field_validator("longest")
    @classmethod
    def _after_first(cls, longest: float, info: ValidationInfo) -> float:
        if longest < info.data.get("first", longest):
            raise ValueError(f"must be at least the first pause, {info.data['first']:g}, got {longest:g}")
        return longest


class StreamSettings(Settings):
    """Of one source. Raises SettingsError.

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
        trusted: files are decoded in this process and not in the cage; see `hardroute.runtime.clips.decode`.
        redirects: an HTTP server may send on to another host or port.
    """

    what: ClassVar[str] = "stream"

    seconds: _Seconds | None = Field(
        None, description="Length of a window; default: the bundle's, or 2 if that takes whole videos."
    )
    stride: _Seconds | None = Field(None, description="Seconds between their starts; default: their length.")
    policy: Policy | None = Field(
        None, description="When answers are too slow: block or drop-oldest; default: block for files only."
    )
    depth: _Count = Field(8, description="Windows of a source that may wait.")
    ahead: _Count = Field(4, description="Windows of a source that may be under way at a time.")
    limits: Limits = Field(default_factory=lambda: Limits(max_bytes=2**63 - 1))
    timeout: _Seconds = Field(5.0, description="Seconds that opening a source, or waiting for a frame, may take.")
    reconnect: Reconnect = Reconnect()
    loop: bool = Field(False, description="Start files and folders anew when they end, for ever.")
    trusted: bool = Field(False, description="Decode files in this process: their maker is trusted.")
    redirects: bool = Field(False, description="Follow a server that sends on to another host or port.")

    def window(self, contract: ClipContract) -> tuple[float, float]:
        """(seconds, stride) under this contract. Raises StreamError if windows would overlap too much."""
        seconds = self.seconds or contract.seconds or DEFAULT_SECONDS
        stride = self.stride or seconds
        if seconds / stride > MAX_OVERLAP:
            raise StreamError(
                f"stream: windows of {seconds:g} s every {stride:g} s overlap more than {MAX_OVERLAP} times; "
                "take a larger stride"
            )
        return seconds, stride
