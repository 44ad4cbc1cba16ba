"""What the service allows its clients."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import Field, field_validator

from hardroute.runtime.clips import Limits
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.settings import Settings

MIN_TOKEN: Final = 16
_GOOD_TOKEN: Final = f"must be one word of at least {MIN_TOKEN} characters, in ASCII"

_Day = Annotated[float, Field(gt=0, le=86_400)]
_Hour = Annotated[float, Field(ge=0.1, le=3600)]
_Count = Annotated[int, Field(ge=1)]


class ServiceSettings(Settings):
    """Bounds on what one request, and all of them together, may cost. Raises SettingsError.

    The disk holds at most `max_concurrent` uploads of `max_upload` bytes at a time; memory none of them.

    Attributes:
        max_upload: bytes of one video.
        max_concurrent: requests for an answer at a time, uploads among them; one more gets 503.
        upload_seconds: wall clock until the whole video must have arrived.
        decode_seconds: wall clock of one video's decoding.
        video_seconds: playing time of one video.
        decode_threads: videos decoded at a time.
        max_batch: clips that run together.
        max_wait: seconds that a clip waits for others.
        token: what clients must show as `Authorization: Bearer TOKEN`; None: nothing.
    """

    what: ClassVar[str] = "service"

    max_batch: _Count = Field(8, description="Clips that run together.")
    max_wait: Annotated[float, Field(ge=0, le=3600)] = Field(0.005, description="Seconds that a clip waits for others.")
    max_upload: _Count = Field(768 * 2**20, description="MiB of one video.")
    max_concurrent: _Count = Field(16, description="Requests under way; one more gets 503.")
    upload_seconds: _Day = Field(120.0, description="Seconds until a whole video must have arrived.")
    decode_seconds: _Hour = Field(20.0, description="Seconds that decoding one video may take.")
    video_seconds: _Day = Field(600.0, description="Playing time of one video, in seconds.")
    decode_threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        default_factory=lambda: os.cpu_count() or 1, description="Videos decoded at a time; default: one per core."
    )
    token: str | None = Field(None, repr=False)

    @field_validator("token")
    @classmethod
    def _hard_to_guess(cls, token: str | None) -> str | None:
        if token is not None and not _is_token(token):
            raise ValueError(_GOOD_TOKEN)
        return token

    @property
    def limits(self) -> Limits:
        """The same bounds in the decoder's terms."""
        return Limits(max_bytes=self.max_upload, max_seconds=self.video_seconds, max_decode_seconds=self.decode_seconds)


DEFAULT_SETTINGS: Final = ServiceSettings()


def read_token(path: Path) -> str:
    """The bearer token in a file: its only line. The file may be a pipe, from a program that keeps secrets.

    Raises:
        HardrouteError: the file cannot be read, or what is in it cannot be sent in a header or is short
            enough to be guessed.
    """
    try:
        with open(path, "rb") as file:
            token = file.read(4096).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not ASCII"
        raise HardrouteError(f"token file {path}: cannot be read ({reason})") from None
    if not _is_token(token):
        raise HardrouteError(f"token file {path}: {_GOOD_TOKEN}; `openssl rand -hex 32` prints a good one")
    return token


def _is_token(text: str) -> bool:
    return len(text) >= MIN_TOKEN and text.isascii() and text.isprintable() and " " not in text
