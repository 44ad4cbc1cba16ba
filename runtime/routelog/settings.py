"""How a routing log is kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from hardroute.runtime.routelog.signed_note import is_name
from hardroute.runtime.settings import Settings


class LogSettings(Settings):
    """When a log begins a new file, what stays, what it waits for and signs; see `RouteLog`. Raises SettingsError."""

    what: ClassVar[str] = "route log"

    max_bytes: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Begin a new log file before one grows larger."
    )
    keep: Annotated[int, Field(ge=0)] | None = Field(None, description="Full log files that stay; default: all.")
    sync: Literal["none", "each"] | float = Field(
        "none", description="Wait for the disk: none, each (line), or at most so many seconds later."
    )
    key: Path | None = Field(None, description="PEM file with an ed25519 private key: signs checkpoints of the log.")
    checkpoint_every: Annotated[int, Field(ge=1)] = Field(
        100, description="Lines from one checkpoint to the next; closing the log signs one too."
    )
    origin: str | None = Field(None, description="Name of the log in its checkpoints; default: from its file.")
    queue: Annotated[int, Field(ge=1)] = Field(4096, description="Lines that may wait to be written; one more is lost.")

    @field_validator("keep")
    @classmethod
    def _of_several(cls, keep: int | None, info: ValidationInfo) -> int | None:
        if keep is not None and info.data.get("max_bytes", 1) is None:
            raise ValueError("needs max_bytes, for without it there is one file for ever")
        return keep

    @field_validator("origin")
    @classmethod
    def _a_name(cls, origin: str | None) -> str | None:
        if origin is not None and not is_name(origin):
            raise ValueError("must be 1 to 200 printable characters without blanks and '+', as in example.org/door")
        return origin

    @field_validator("sync", mode="before")
    @classmethod
    def _a_word_or_seconds(cls, sync: object) -> object:
        if isinstance(sync, str):
            try:
                sync = float(sync)  # from a command line
            except ValueError:
                known = sync in ("none", "each")
            else:
                known = 0 < sync < math.inf
        else:
            known = isinstance(sync, int | float) and 0 < sync < math.inf
        if not known:
            raise ValueError(f'must be "none", "each" or seconds above 0, got {sync!r:.100}')
        return sync

    @property
    def durable(self) -> bool:
        """Whether the disk is waited for at all."""
        return self.sync != "none"

    @property
    def seconds(self) -> float | None:
        """The longest that a line may stay off the disk, where that is a number."""
        return None if isinstance(self.sync, str) else self.sync
