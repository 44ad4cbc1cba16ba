"""A video becomes clips, in bounded memory: frames are resized as they come, never held."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from hardroute.runtime.clips import sampling
from hardroute.runtime.clips.contract import ClipContract
from hardroute.runtime.clips.frame_source import RE_ENCODE, Frame, Track, open_file
from hardroute.runtime.clips.frames import ClipFrames
from hardroute.runtime.clips.limits import Limits
from hardroute.runtime.clips.packets import Packets, check_complete
from hardroute.runtime.clips.preprocess import fit_frame
from hardroute.runtime.errors import ClipError

# Bytes of full-size frames that may be held at a time.
_ROOM = 8 * 2**20
# Seconds before a keyframe at which it is sought.
_EARLIER = (0.0, 1.0, 10.0)


@dataclass
class Scan:
    """What a read through a video gave.

    Attributes:
        starts: of the frames, in seconds from the first one.
        duration: in seconds, to the end of the last frame.
        decoded: frames that could be decoded, or that need not be. expected: frames that there should be.
        kept: frames by index, (H, W, 3) uint8 RGB or, while there is room, as they were decoded.
    """

    starts: np.ndarray
    duration: float
    decoded: int
    expected: int
    kept: dict[int, np.ndarray | Frame] = field(default_factory=dict)


class Reader:
    """Reads one video for its clips. The wall clock runs from the reader's making.

    Args:
        file: open, of the container `demuxer`. name: for messages.
        allow_short: a video of which much is missing is an error, unless this.
    """

    def __init__(
        self,
        file: BinaryIO,
        name: str,
        demuxer: str,
        contract: ClipContract,
        limits: Limits,
        spread: sampling.Spread,
        allow_short: bool = False,
    ) -> None:
        self._file, self._name, self._demuxer = file, name, demuxer
        self._contract, self._limits, self._spread, self._allow_short = contract, limits, spread, allow_short
        self._deadline = time.monotonic() + limits.max_decode_seconds

    def read(self) -> ClipFrames:
        """Raises ClipError."""
        try:
            scan, indices = self._read()
            fitted = {i: self._fitted(scan.kept[i]) for i in set(indices.flatten().tolist())}
            frames = np.stack([np.stack([fitted[i] for i in shown]) for shown in indices.tolist()])
        except MemoryError:
            raise ClipError(f"{self._name}: decoding it takes more memory than is allowed; scale it down") from None
        starts = self._spread.starts(scan.duration).tolist()
        return ClipFrames(frames, starts, scan.duration, scan.decoded, scan.expected)

    def _read(self) -> tuple[Scan, np.ndarray]:
        with self._open() as track:
            packets = Packets.read(track, self._timed(track.packets()), self._spread.end)
            self._check_length(track, packets)
            scan = self._by_seeking(track, packets)
            if scan:
                return scan, self._indices(scan)
            if packets.held is not None:
                track.restart()
                scan = self._through(track, packets, packets.held, None)
        if scan is None:
            with self._open() as track:
                scan = self._through(track, packets, track.packets(), None)
        self._check_complete(scan)
        indices = self._indices(scan)
        wanted = set(indices.flatten().tolist())
        if not wanted <= scan.kept.keys():
            # The container was wrong about length or times, so the first pass did not keep the right frames.
            with self._open() as track:
                scan = self._through(track, packets, track.packets(), wanted)
            if not wanted <= scan.kept.keys():
                raise ClipError(f"{self._name}: decodes differently each time; {RE_ENCODE}")
        return scan, indices

    def _open(self) -> Any:
        self._time_left()
        return open_file(self._file, self._name, self._demuxer, self._limits)

    def _indices(self, scan: Scan) -> np.ndarray:
        return sampling.frames_on_display(scan.starts, self._spread.times(self._contract.frames, scan.duration))

    def _keep(self, frame: Frame, others: int) -> np.ndarray | Frame:
        # Resizing costs more than decoding, and of the likely frames only some will be shown.
        return frame if (others + 1) * frame.pixels * 3 <= _ROOM else self._fit(frame)

    def _fitted(self, kept: np.ndarray | Frame) -> np.ndarray:
        return self._fit(kept) if isinstance(kept, Frame) else kept

    def _fit(self, frame: Frame) -> np.ndarray:
        return fit_frame(frame.rgb(), self._contract, frame.aspect)

    def _by_seeking(self, track: Track, packets: Packets) -> Scan | None:
        """Decodes from keyframes only what is shown. None where reading all is cheaper, or the packets misled."""
        if self._spread.end is not None and not packets.whole:
            return None
        timeline = packets.timeline()
        if timeline is None:
            return None
        starts = np.array([track.seconds(tick - timeline[0]) for tick in timeline])
        duration = float(starts[-1]) + packets.tally.last_seconds
        scan = Scan(starts, duration, len(timeline), packets.tally.expected(len(timeline), interlaced=False))
        places = {timeline[i]: i for i in sorted(set(self._indices(scan).flatten().tolist()))}
        stretches = packets.stretches(track, places)
        if stretches is None:
            return None
        self._check_complete(scan)
        for begin, ticks in stretches:
            track.restart()
            for frame in track.decode(self._from(track, packets, begin)):
                tick = round(frame.stamp / track.time_base) if frame.stamp == frame.stamp else None
                if tick in ticks:
                    ticks.remove(tick)
                    scan.kept[places[tick]] = self._fit(frame)
                if not ticks:
                    break
            if ticks or track.damaged:
                return None
        return scan

    def _from(self, track: Track, packets: Packets, begin: int) -> Iterator[Any]:
        if packets.held is not None:
            yield from self._timed(packets.held[begin:])
            return
        tick, sought = packets.ticks[begin], packets.seeks[begin]
        # Transport streams have no index, and a search in them may end beyond what was looked for.
        for earlier in _EARLIER:
            found = False
            track.seek((sought or 0) - int(earlier / track.time_base))
            for packet in self._timed(track.packets()):
                at = track.tick(packet)
                found = found or (packet.is_keyframe and at == tick)
                if found:
                    yield packet
                elif packet.is_keyframe and at is not None and tick is not None and at > tick:
                    break
            if found:
                return

    def _through(self, track: Track, packets: Packets, data: Iterable[Any], wanted: set[int] | None) -> Scan:
        """Decodes from the start; keeps the frames `wanted` by index, or those that the packets make likely."""
        window = self._spread.end
        forecast = self._forecast(track, packets) if wanted is None else None
        clock = sampling.Clock(track.fps)
        starts: list[float] = []
        kept: dict[int, np.ndarray | Frame] = {}
        before: Frame | None = None
        complete, interlaced, frame = False, False, None
        for frame in track.decode(self._timed(data)):
            start = clock.tick(frame.stamp)
            if forecast and before and forecast.shows(starts[-1], start):
                kept[len(starts) - 1] = self._keep(before, len(kept))
                if len(kept) > 4 * self._contract.frames * self._spread.count:
                    # The container is far off: keep nothing more, and leave it to a second pass.
                    forecast = None
            if window is not None and start >= window:
                complete = True
                break
            if wanted is not None and len(starts) in wanted:
                kept[len(starts)] = self._keep(frame, len(kept))
            starts.append(start)
            self._limits.check_length(self._name, len(starts), start)
            before, interlaced = frame, interlaced or frame.interlaced
        if not starts or frame is None:
            raise ClipError(f"{self._name}: not one frame could be decoded (damaged); {RE_ENCODE}")
        if forecast and not complete:
            # Nothing follows, so the last frame stays on display.
            kept[len(starts) - 1] = self._keep(frame, len(kept))
        duration = starts[-1] + track.lasting(frame.duration)
        if window is None:
            self._limits.check_length(self._name, len(starts), duration)
        # Up to a window's end that came, or that the packets were read to, everything was seen.
        expected = len(starts)
        if not complete:
            tally = packets.tally
            expected = tally.expected(len(starts), interlaced) if packets.whole else tally.frames
        return Scan(np.array(starts), duration, len(starts), expected, kept)

    def _forecast(self, track: Track, packets: Packets) -> sampling.Forecast:
        timeline = packets.timeline()
        if timeline is None:
            longest = len(packets.shown) / track.fps
        else:
            longest = track.seconds(timeline[-1] - timeline[0]) + packets.tally.last_seconds
        # Genuine UCF-101 and HMDB-51 files are often one frame short, which shifts their late samples.
        slack = 1 / track.fps if timeline is None or track.decoding_times else 0.0
        return sampling.Forecast.over(self._contract.frames, longest - slack, longest, self._spread)

    def _check_length(self, track: Track, packets: Packets) -> None:
        timeline = packets.timeline()
        if packets.whole and timeline and self._spread.end is None:
            seconds = track.seconds(timeline[-1] - timeline[0]) + packets.tally.last_seconds
            self._limits.check_length(self._name, len(timeline), seconds)

    def _check_complete(self, scan: Scan) -> None:
        if not self._allow_short:
            check_complete(self._name, scan.decoded, scan.expected)

    def _timed(self, packets: Iterable[Any]) -> Iterator[Any]:
        for packet in packets:
            self._time_left()
            yield packet

    def _time_left(self) -> None:
        if time.monotonic() > self._deadline:
            raise ClipError(
                f"{self._name}: decoding took longer than {self._limits.max_decode_seconds:g} seconds; "
                "scale the video down or raise max_decode_seconds"
            )
