"""What a log may be asked for, checked before anything is written."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from hardroute.runtime.errors import HardrouteError


@dataclass(frozen=True)
class Options:
    """How a log is kept; see `RouteLog`. Raises HardrouteError for a value that makes no sense."""

    max_bytes: int | None = None
    keep: int | None = None
    sync: str | float = "none"

    def __post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 1:
            raise HardrouteError(f"route log: max_bytes must be at least 1, not {self.max_bytes}")
        if self.keep is not None and (self.keep < 0 or self.max_bytes is None):
            raise HardrouteError(f"route log: keep={self.keep} needs max_bytes, and must not be negative")
        known = self.sync in ("none", "each") if isinstance(self.sync, str) else 0 < self.sync < math.inf
        if not known:
            raise HardrouteError(f'route log: sync must be "none", "each" or seconds above 0, not {self.sync!r}')

    @property
    def durable(self) -> bool:
        """Whether the disk is waited for at all."""
        return self.sync != "none"

    @property
    def seconds(self) -> float | None:
        """The longest that a line may stay off the disk, where that is a number."""
        return None if isinstance(self.sync, str) else float(self.sync)


def check_place(path: Path) -> None:
    """Raises HardrouteError where no log can be written; makes nothing."""
    if not path.parent.is_dir():
        raise HardrouteError(f"route log {path}: no such folder {path.parent}; create it first")
    if path.is_dir():
        raise HardrouteError(f"route log {path}: is a folder; name a file in it")
    target = path if path.exists() else path.parent
    if not os.access(target, os.W_OK):
        raise HardrouteError(f"route log {path}: no permission to write {target}")
