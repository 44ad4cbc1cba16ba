"""What one line of the routing log says; `docs/routing-log.md` is its published description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypedDict

import numpy as np

from hardroute.runtime.errors import LogError
from hardroute.runtime.prediction import Prediction

SCHEMA: Final = 2
_JITTER: Final = timedelta(seconds=1)


class Record(Protocol):
    """Whatever the log can write: it makes one JSON object of itself."""

    def to_json(self) -> str: ...


class Window(TypedDict):
    """A window of a stream or a video: its number, and where it starts and ends, seconds since that began."""

    index: int
    start: float
    end: float


class Video(TypedDict):
    """The answer for a video from several clips: label, its mean probability, and how many clips."""

    label: str
    probability: float
    clips: int


@dataclass(frozen=True)
class RouteRecord:
    """One answered clip, schema 2. Later fields may be added; none of these changes its meaning.

    Fields that are None are left out of the line.

    Attributes:
        schema: 2.
        time: when the clip was answered; UTC, ISO 8601 with microseconds.
        clip: name of the video; empty where bare frames were classified.
        clip_sha256: SHA-256 of the video file's bytes, hex; empty where bare frames were classified.
        bundle_sha256: the bundle's digest, hex (SHA-256 of its `manifest.json`).
        label: the most probable class.
        probability: of that class, in [0, 1].
        weights: the router's softmax weight of every expert.
        expert: index of the expert that answered.
        margin: weight of the first minus weight of the second expert, in [0, 1].
        ms: milliseconds of wall clock: `decode`, `route`, `expert`; see `hardroute.runtime.prediction.Timing`.
        stream: name of the source that the clip is a window of.
        window: which window of it, or of the video, the clip is.
        abstained: True: the service gave no answer, for the margin was too small; `label` is what it would have been.
        alarms: names of the alarms that were raised on this clip.
        video: what was answered for the video that the clip is one of several of; `label` is the clip's own.
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
    stream: str | None = None
    window: Window | None = None
    abstained: bool | None = None
    alarms: list[str] | None = None
    video: Video | None = None

    @classmethod
    def from_prediction(
        cls,
        prediction: Prediction,
        bundle_digest: str,
        *,
        stream: str | None = None,
        window: Window | None = None,
        abstained: bool | None = None,
        alarms: Sequence[str] = (),
        video: Video | None = None,
    ) -> RouteRecord:
        """The record of one prediction, stamped with the time of this call."""
        return cls(
            schema=SCHEMA,
            time=_now(),
            clip=prediction.clip,
            clip_sha256=prediction.clip_sha256,
            bundle_sha256=bundle_digest,
            label=prediction.label,
            probability=_short(prediction.probability),
            weights=[_short(weight) for weight in prediction.route.weights],
            expert=prediction.route.expert,
            margin=_short(prediction.route.margin),
            ms={name: round(value, 3) for name, value in asdict(prediction.milliseconds).items()},
            stream=stream,
            window=window,
            abstained=abstained,
            alarms=list(alarms) or None,
            video=video and {**video, "probability": _short(video["probability"])},
        )

    def to_json(self) -> str:
        """One line of ASCII without the line break; any file name fits in it.

        Raises:
            LogError: a number is not finite.
        """
        return _to_json(vars(self))


@dataclass(frozen=True)
class EventRecord:
    """Something else than an answer that a reader of the log must know of, schema 2.

    Attributes:
        schema: 2.
        time: when; UTC, ISO 8601 with microseconds.
        event: what, in a word: `clip` (one that cannot be used), `error`, `source-lost`, `source-back`, `dropped`,
            `alarm`, `acknowledged`; others may come. The log itself writes `lost` (see `RouteLog`).
        error: the line that a person would see.
        count: how many, where the event has a number.
        bundle_sha256, clip, stream, window, alarms: as in `RouteRecord`, where they apply.
    """

    schema: int
    time: str
    event: str
    error: str | None = None
    count: int | None = None
    bundle_sha256: str | None = None
    clip: str | None = None
    stream: str | None = None
    window: Window | None = None
    alarms: list[str] | None = None

    @classmethod
    def now(
        cls,
        event: str,
        *,
        error: str | None = None,
        count: int | None = None,
        bundle_digest: str | None = None,
        clip: str | None = None,
        stream: str | None = None,
        window: Window | None = None,
        alarms: Sequence[str] = (),
    ) -> EventRecord:
        """An event that happens at the time of this call.

        >>> EventRecord.now("source-lost", stream="door", error="no frame for 10 s").event
        'source-lost'
        """
        return cls(SCHEMA, _now(), event, error, count, bundle_digest, clip, stream, window, list(alarms) or None)

    def to_json(self) -> str:
        """One line of ASCII without the line break. Raises LogError for a number that is not finite."""
        return _to_json(vars(self))


def time_of(fields: Mapping[str, object]) -> datetime | None:
    """When a line was made, UTC; None where it does not say so."""
    try:
        return datetime.fromisoformat(str(fields.get("time"))).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def goes_back(before: datetime, now: datetime) -> bool:
    """Whether a clock was set back. Threads that write at the same time may be out of order for a moment."""
    return before - now > _JITTER


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _to_json(fields: dict[str, object]) -> str:
    try:
        return json.dumps({name: value for name, value in fields.items() if value is not None}, allow_nan=False)
    except ValueError:
        raise LogError("route log: a record holds a number that is not finite; JSON has no word for it") from None


def _short(value: float | np.floating) -> float:
    # The shortest decimal that gives the same float32 back, instead of a double's 17 digits.
    return float(str(np.float32(value)))
