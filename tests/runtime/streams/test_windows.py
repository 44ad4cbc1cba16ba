"""Windows of a stream against `decode` and against brute force over all frames of the video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardroute import ClipContract, HardrouteError, Limits, decode
from hardroute.runtime.clips import sampling
from hardroute.runtime.errors import ClipError
from hardroute.runtime.streams.pace import Pauses, RateLimit
from hardroute.runtime.streams.reader import Reader, Window
from hardroute.runtime.streams.settings import Reconnect, StreamSettings
from hardroute.runtime.streams.source import open_source
from hardroute.runtime.streams.windows import Windows
from tests.support.videos import grey_frames, indices_shown, write, write_avi, write_variable_rate

CONTRACT = ClipContract(frames=4, height=8, width=8)


class Collected:
    """A sink that keeps all that it is given."""

    def __init__(self) -> None:
        self.windows: list[Window] = []
        self.notes: list[tuple[str, str | None]] = []
        self.counts: dict[str, int] = {}

    def put(self, window: Window) -> None:
        self.windows.append(window)

    def note(self, kind: str, error: str | None = None, video: int = 0) -> None:
        self.notes.append((kind, error))

    def count(self, **more: int) -> None:
        for name, count in more.items():
            self.counts[name] = self.counts.get(name, 0) + count


def read(source: object, contract: ClipContract = CONTRACT, **options: object) -> Collected:
    sink, settings = Collected(), StreamSettings(**options)
    Reader(open_source(source, settings, CONTRACT), contract, settings, sink).run()
    assert sink.notes.pop()[0] == "end"
    return sink


def brute_force(starts: np.ndarray, frames: int, begin: float, seconds: float) -> list[int]:
    """Which frames a player shows at the sampling times of a window, by the definition of `frames_on_display`."""
    return sampling.frames_on_display(starts, begin + sampling.sample_times(frames, seconds)).tolist()


@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.7, 5.0, 60.0])
@pytest.mark.parametrize("name", ["steady.avi", "steady.mp4", "varying.mkv"])
def test_the_first_window_is_what_decode_makes(tmp_path: Path, name: str, seconds: float) -> None:
    contract = ClipContract(frames=5, height=24, width=32, resize="short-side-crop")
    frames = np.random.default_rng(0).integers(0, 256, (50, 40, 60, 3), np.uint8)
    if name.endswith("mkv"):
        gaps = np.random.default_rng(1).integers(5, 200, 50)
        path = write_variable_rate(tmp_path / name, frames, np.cumsum(gaps).tolist())
    else:
        path = write(tmp_path / name, frames, codec="MJPG" if name.endswith("avi") else "mp4v")
    windows = read(path, contract, seconds=seconds).windows
    # A stream of colours, so that a swap of red and blue or another way to resize would show.
    oracle = decode(path, contract.model_copy(update={"seconds": seconds}))
    np.testing.assert_array_equal(windows[0].frames, oracle.frames)
    assert (windows[0].clip, windows[0].sha256) == (oracle.name, oracle.sha256)


@pytest.mark.parametrize("stride", [0.25, 1.0, 1.5])
def test_each_window_shows_what_a_player_shows_then(tmp_path: Path, stride: float) -> None:
    gaps = np.random.default_rng(2).integers(10, 250, 51)
    stamps = np.cumsum(gaps) - gaps[0]
    path = write_variable_rate(tmp_path / "a.mkv", grey_frames(51), stamps.tolist())
    windows = read(path, seconds=1.0, stride=stride).windows
    assert len(windows) >= 4
    for k, window in enumerate(windows):
        assert (window.index, window.start, window.end) == (k, k * stride, k * stride + 1.0)
        assert indices_shown(window.frames) == brute_force(stamps / 1000, 4, k * stride, 1.0)


def test_a_window_equals_the_decode_of_that_part_alone(tmp_path: Path) -> None:
    """Windows that begin with a frame: the video cut there is a video of its own."""
    frames = np.random.default_rng(3).integers(0, 256, (40, 40, 60, 3), np.uint8)
    # `write_avi` encodes each frame by itself, so that a part has the whole's very pixels.
    windows = read(write_avi(tmp_path / "whole.avi", list(frames)), seconds=1.0, stride=0.5).windows
    assert len(windows) == 8
    for k, window in enumerate(windows):
        part = write_avi(tmp_path / f"{k}.avi", list(frames[5 * k : 5 * k + 10]))
        # The last one is cut short by the end of the video, and so is the part.
        np.testing.assert_array_equal(window.frames, decode(part, CONTRACT.model_copy(update={"seconds": 1.0})).frames)


def test_the_rest_of_a_video_is_a_window_if_half_of_it_was_played(tmp_path: Path) -> None:
    for count, expected in ((24, 2), (25, 3), (29, 3), (30, 3), (3, 1)):
        path = write(tmp_path / f"{count}.avi", grey_frames(count), fps=10)
        windows = read(path, seconds=1.0).windows
        assert len(windows) == expected, count
        # The last frame stays on display, as in `decode`.
        assert indices_shown(windows[-1].frames) == brute_force(np.arange(count) / 10, 4, expected - 1, 1.0)


@given(
    gaps=st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60),
    seconds=st.floats(0.1, 4.0),
    overlap=st.floats(0.3, 8.0),
    frames=st.integers(1, 6),
)
def test_any_clock_gives_what_brute_force_gives(gaps: list[float], seconds: float, overlap: float, frames: int) -> None:
    stride = seconds / overlap
    contract = CONTRACT.model_copy(update={"frames": frames})
    starts = np.concatenate([[0.0], np.cumsum(gaps)])
    windows = Windows(contract, seconds, stride)
    # One array for all frames, as a capture that reuses its memory; the frame's index is its level.
    image = np.zeros((8, 8, 3), np.uint8)
    found, most = [], 0
    for n, start in enumerate(starts.tolist()):
        found += list(windows.advance(start))
        image[:] = n
        windows.hold(image)
        most = max(most, windows.frames_held)
    end = float(starts[-1])
    assert len(found) >= int((end - seconds) / stride)
    for k, cut in enumerate(found):
        assert (cut.number, cut.start) == (k, k * stride)
        assert cut.frames[:, 0, 0, 0].tolist() == brute_force(starts, frames, k * stride, seconds)
    # However long the video: no more frames than the windows that are open at a time can hold.
    assert most <= frames * (int(overlap) + 1)


def test_memory_does_not_grow_with_the_video() -> None:
    windows, held = Windows(CONTRACT, 2.0, 0.5), set()
    for n in range(20_000):
        list(windows.advance(n / 25))
        windows.hold(np.zeros((8, 8, 3), np.uint8))
        held.add(windows.frames_held)
    assert max(held) <= 4 * 4


class Frames:
    """A source of one grey frame for each timestamp."""

    fps = 10.0

    def __init__(self, stamps: list[float], bad: tuple[int, ...] = (), size: tuple[int, int] = (8, 8)) -> None:
        self._frames = iter(enumerate(stamps))
        self._bad, self._size = bad, size

    def read(self) -> tuple[float, np.ndarray] | None:
        for n, stamp in self._frames:
            frame = np.full((*self._size, 3), n % 250, np.uint8)
            return stamp, frame[..., 0] if n in self._bad else frame
        return None


def levels(window: Window) -> list[int]:
    return window.frames[:, 0, 0, 0].tolist()


def test_frames_that_cannot_be_converted_are_counted_and_the_one_before_stays() -> None:
    sink = read(Frames([n / 10 for n in range(20)], bad=(3, 4, 11)), seconds=1.0)
    assert sink.counts == {"frames": 20, "corrupt": 3}
    shown = [levels(window) for window in sink.windows]
    assert shown == [[1, 2, 6, 8], [10, 13, 16, 18]]  # frames 1, 3, 6, 8 and 11, 13, 16, 18 without the bad ones


def test_a_run_of_frames_that_cannot_be_converted_ends_the_video() -> None:
    sink = read(Frames([n / 10 for n in range(500)], bad=tuple(range(20, 500))), seconds=1.0)
    assert [kind for kind, _ in sink.notes] == ["clip"] and "100 frames in a row" in str(sink.notes[0][1])
    assert sink.counts["frames"] == 120 and len(sink.windows) >= 2


def test_a_jump_of_the_clock_begins_anew_instead_of_filling_the_gap() -> None:
    stamps = [n / 10 for n in range(20)] + [1e9 + n / 10 for n in range(20)]
    sink = read(Frames(stamps), seconds=1.0)
    assert sink.counts["jumps"] == 1
    assert [(w.index, w.video, w.start) for w in sink.windows] == [(0, 0, 0.0), (1, 0, 1.0), (2, 1, 0.0), (3, 1, 1.0)]
    assert levels(sink.windows[2]) == [21, 23, 26, 28]


@pytest.mark.parametrize("stamp", [float("nan"), float("inf"), -1e300, 0.0])
def test_stamps_that_mean_nothing_are_mended_by_the_rate(stamp: float) -> None:
    sink = read(Frames([0.0] + [stamp] * 39), seconds=1.0)
    assert [levels(w) for w in sink.windows][:3] == [[1, 3, 6, 8], [11, 13, 16, 18], [21, 23, 26, 28]]


def test_a_bomb_of_frames_ends_the_video() -> None:
    sink = read(Frames([n * 1e-7 for n in range(5000)]), seconds=1.0)
    assert "more than 1,001 frames in 1 seconds" in str(sink.notes[0][1])
    assert sink.counts["frames"] <= 1001 and not sink.windows


def test_large_frames_end_the_video() -> None:
    sink = read(Frames([0.0, 0.1], size=(100, 101)), seconds=1.0, limits=Limits(max_pixels=10_000))
    assert "101x100 pixels, above the limit of 10,000" in str(sink.notes[0][1])


def test_a_cut_off_file_gives_its_windows_and_then_the_error(tmp_path: Path) -> None:
    path = write_avi(tmp_path / "cut.avi", list(grey_frames(25)), promised=40)
    sink = read(path, seconds=1.0)
    assert [indices_shown(w.frames)[0] for w in sink.windows] == [1, 11]
    assert [kind for kind, _ in sink.notes] == ["clip"] and "only 25 of the 40 frames" in str(sink.notes[0][1])


def test_a_folder_is_read_file_by_file(tmp_path: Path) -> None:
    for n, count in enumerate((20, 12)):
        write(tmp_path / f"{n}.avi", grey_frames(count), fps=10)
    (tmp_path / "1-broken.mp4").write_text("no video at all")
    (tmp_path / "notes.txt").write_text("not looked at")
    sink = read(tmp_path, seconds=1.0)
    assert [(w.clip, w.index, w.video, w.start) for w in sink.windows] == [
        ("0.avi", 0, 0, 0.0),
        ("0.avi", 1, 0, 1.0),
        ("1.avi", 2, 2, 0.0),
    ]
    assert [(kind, "1-broken.mp4: text" in str(error)) for kind, error in sink.notes] == [("clip", True)]
    assert sink.counts["unusable"] == 1


def test_a_loop_does_not_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", grey_frames(10), fps=10)

    class Enough(Collected):
        def put(self, window: Window) -> None:
            super().put(window)
            if len(self.windows) == 7:
                reader.stop()

    sink, settings = Enough(), StreamSettings(seconds=1.0, loop=True)
    reader = Reader(open_source(path, settings, CONTRACT), CONTRACT, settings, sink)
    reader.run()
    assert [w.video for w in sink.windows] == list(range(7))


def test_a_source_that_raises_anything_ends_with_that() -> None:
    class Broken:
        fps = 25.0

        def read(self) -> Iterator[int]:
            raise ZeroDivisionError("oops")

    sink, settings = Collected(), StreamSettings()
    Reader(open_source(Broken(), settings, CONTRACT), CONTRACT, settings, sink).run()
    assert sink.notes == [("end", "Broken: the source failed with ZeroDivisionError: oops")]


@pytest.mark.parametrize(
    "source, says",
    [
        ("absent.mp4", "no such file or folder"),
        ("", "name is empty"),
        (" ", "name is empty"),
        ("ftp://host/a.mp4", "scheme 'ftp' is not opened here; known: rtsp"),
        ("file:///no/such.mp4", "no such file"),
        ("file://other/a.mp4", "another machine"),
        ("concat:a|b", "no such file"),
        ("rtsp://", "not a URL with a host"),
        ("http://host/a b", "without blanks"),
        ("rtsp://host:port/", "cannot be read"),
        (1.5, "source float"),
    ],
)
def test_what_is_no_source_is_refused_at_once(source: object, says: str) -> None:
    with pytest.raises(HardrouteError, match=says):
        open_source(source, StreamSettings(), CONTRACT)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HardrouteError, match="no video in it"):
        open_source(tmp_path, StreamSettings(), CONTRACT)


def test_a_password_is_nowhere_in_a_name() -> None:
    source = open_source("rtsp://user:secret@door:554/one?token=secret#secret", StreamSettings(), CONTRACT)
    assert source.name == "rtsp://door:554/one"


@pytest.mark.parametrize(
    "options, says",
    [
        ({"seconds": 0}, "seconds must be greater than 0"),
        ({"seconds": float("nan")}, "seconds must be "),
        ({"stride": -1.0}, "stride must be greater than 0"),
        ({"policy": "drop"}, "policy must be 'block' or 'drop-oldest', got 'drop'"),
        ({"depth": 0}, "at least 1"),
        ({"seconds": 10.0, "stride": 0.1}, "overlap more than 64 times"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(HardrouteError, match=says):
        StreamSettings(**options).window(CONTRACT)


def test_the_window_is_the_contracts_where_nothing_is_said() -> None:
    assert StreamSettings().window(CONTRACT) == (2.0, 2.0)
    assert StreamSettings(stride=1.0).window(CONTRACT.model_copy(update={"seconds": 3.0})) == (3.0, 1.0)


@pytest.mark.parametrize(
    "options", [{"first": -1.0}, {"first": float("nan")}, {"longest": float("inf")}, {"first": 9.0, "longest": 1.0}]
)
def test_pauses_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    """A negative pause would try a dead camera without a break."""
    with pytest.raises(HardrouteError, match=r"reconnect: (first|longest) must be "):
        Reconnect(**options)
    with pytest.raises(HardrouteError, match="attempts must be at least 0"):
        Reconnect(attempts=-1)


def test_pauses_double_up_to_the_longest_and_begin_anew_with_a_frame() -> None:
    pauses = Pauses(Reconnect(first=1.0, longest=10.0, attempts=8))
    tries = [pauses.next(came_back=False) for _ in range(8)]
    for pause, most in zip(tries, (1, 2, 4, 8, 10, 10, 10, 10), strict=True):
        assert pause is not None and most / 2 <= pause <= most
    assert pauses.next(came_back=False) is None
    again = pauses.next(came_back=True)
    assert again is not None and again <= 1


def test_the_rate_is_bounded_in_each_window_by_itself() -> None:
    rate = RateLimit("x", seconds=1.0, max_frames=5)
    for window in range(3):
        for n in range(5):
            rate.check(window + n / 10)
    with pytest.raises(ClipError, match="more than 5 frames"):
        rate.check(2.9)
