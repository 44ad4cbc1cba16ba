"""The route log: one JSON line for every clip that was answered."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from runtime.errors import HardrouteError
from runtime.prediction import Prediction

SCHEMA: Final = 1


@dataclass(frozen=True)
class RouteRecord:
    """One line of the log, schema 1. Later fields may be added; none of these changes its meaning.

    Attributes:
        schema: 1.
        time: when the clip was answered; UTC, ISO 8601 with microseconds.
        clip: name of the video; empty where bare frames were classified.
        clip_sha256: SHA-256 of the video file's bytes, hex; empty where bare frames were classified.
        bundle_sha256: the bundle's digest, hex (SHA-256 of its `manifest.json`).
        label: the most probable class.
        probability: of that class, in [0, 1].
        weights: the router's softmax weight of every expert.
        expert: index of the expert that answered.
        margin: weight of the first minus weight of the second expert, in [0, 1].
        ms: milliseconds of wall clock: `decode`, `route`, `expert`; see `runtime.prediction.Timing`.
    """

    schema: int
    time: str
    clip: str
    clip_sha256: str
    bundle_sha256: str
    label: str
    probability: float
    weights: list[float]
    expert: int
    margin: float
    ms: dict[str, float]

    @classmethod
    def from_prediction(cls, prediction: Prediction, bundle_digest: str) -> RouteRecord:
        """The record of one prediction, stamped with the time of this call."""
        return cls(
            schema=SCHEMA,
            time=datetime.now(UTC).isoformat(timespec="microseconds"),
            clip=prediction.clip,
            clip_sha256=prediction.clip_sha256,
            bundle_sha256=bundle_digest,
            label=prediction.label,
            probability=_short(prediction.probability),
            weights=[_short(weight) for weight in prediction.route.weights],
            expert=prediction.route.expert,
            margin=_short(prediction.route.margin),
            ms={name: round(value, 3) for name, value in asdict(prediction.milliseconds).items()},
        )

    def to_json(self) -> str:
        """One line of ASCII without the line break; any file name fits in it."""
        return json.dumps(asdict(self), allow_nan=False)


class RouteLog:
    """A file that records are appended to. Several processes may append to the same one.

    Nothing is created before the first record.

    Args:
        path: the file; its folder must exist.

    Raises:
        HardrouteError: the file cannot be written there; said before any clip is classified.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: int | None = None
        self._torn = False
        if not self.path.parent.is_dir():
            raise HardrouteError(f"route log {self.path}: no such folder {self.path.parent}; create it first")
        if self.path.is_dir():
            raise HardrouteError(f"route log {self.path}: is a folder; name a file in it")
        target = self.path if self.path.exists() else self.path.parent
        if not os.access(target, os.W_OK):
            raise HardrouteError(f"route log {self.path}: no permission to write {target}")

    def append(self, record: RouteRecord) -> None:
        """Writes one line.

        Raises:
            HardrouteError: the line could not be written in full (a full disk, say).
        """
        try:
            if self._file is None:
                self._file = self._open()
            # After a line that was cut off, this one must not become its tail.
            line = (b"\n" if self._torn else b"") + record.to_json().encode("ascii") + b"\n"
            # One write per line on an O_APPEND file: lines of several processes cannot interleave.
            written = os.write(self._file, line)
        except OSError as error:
            raise HardrouteError(f"route log {self.path}: cannot be written: {error.strerror}") from None
        self._torn = written < len(line)
        if self._torn:
            raise HardrouteError(f"route log {self.path}: the line was cut off; is the disk full?")

    def close(self) -> None:
        """Closes the file; a later `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> RouteLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> int:
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_size:
            self._torn = os.pread(file, 1, status.st_size - 1) != b"\n"
        return file


def _short(value: float | np.floating) -> float:
    # The shortest decimal that gives the same float32 back, instead of a double's 17 digits.
    return float(str(np.float32(value)))
