"""What the service allows its clients."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hardroute.runtime.clips import Limits
from hardroute.runtime.errors import HardrouteError

MIN_TOKEN = 16


@dataclass(frozen=True)
class ServiceSettings:
    """Bounds on what one request, and all of them together, may cost.

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

    max_upload: int = 64 * 2**20
    max_concurrent: int = 16
    upload_seconds: float = 30.0
    decode_seconds: float = 20.0
    video_seconds: float = 300.0
    decode_threads: int = os.cpu_count() or 1
    max_batch: int = 8
    max_wait: float = 0.005
    token: str | None = None

    @property
    def limits(self) -> Limits:
        """The same bounds in the decoder's terms."""
        return Limits(max_bytes=self.max_upload, max_seconds=self.video_seconds, max_decode_seconds=self.decode_seconds)


DEFAULT_SETTINGS = ServiceSettings()


def read_token(path: Path) -> str:
    """The bearer token in a file: its only line.

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
    if len(token) < MIN_TOKEN or not token.isprintable() or " " in token:
        raise HardrouteError(
            f"token file {path}: expected one word of at least {MIN_TOKEN} characters; "
            "`openssl rand -hex 32` prints a good one"
        )
    return token
