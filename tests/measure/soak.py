"""`python -m tests.measure.soak BUNDLE --minutes 60`: memory and cost of a long stream, first and last."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from hardroute import Engine, RouteLog, Stream
from hardroute.runtime.cli import main
from hardroute.runtime.datasets import open_set
from hardroute.runtime.errors import HardrouteError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
GOAL = 5.0  # percent


class Endless:
    """A video file that begins again whenever it ends, as one stream whose clock goes on."""

    def __init__(self, video: Path, seconds: float, realtime: bool = False) -> None:
        self.name = video.name
        self.fps = cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)
        self._frames = self._read(video)
        self._left = round(seconds * self.fps)
        self._realtime, self._began, self._count = realtime, time.monotonic(), 0

    def read(self) -> tuple[float, np.ndarray] | None:
        """The next frame and its time, or None after `seconds`."""
        if not self._left:
            self._frames.close()
            return None
        self._left -= 1
        stamp, frame = self._count / self.fps, next(self._frames)
        self._count += 1
        if self._realtime:
            time.sleep(max(0.0, self._began + stamp - time.monotonic()))
        return stamp, frame

    def _read(self, video: Path) -> Generator[np.ndarray, None, None]:
        while True:
            capture, frames = cv2.VideoCapture(str(video)), 0
            while capture.grab():
                frames += 1
                yield cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
            if not frames:
                raise HardrouteError(f"{video}: not one frame could be decoded; give another --video")


@dataclass(frozen=True)
class Soak:
    """What a long stream cost.

    Attributes:
        times: (N,) seconds of stream at the end of each window. memory: (N,) resident MiB then. cpu: (N,) seconds of
            processor time, of all threads, spent by then. errors: windows without an answer, and dropped ones.
        lines: of the routing log.
    """

    times: np.ndarray
    memory: np.ndarray
    cpu: np.ndarray
    errors: int
    lines: int

    def settled(self, share: float = 1 / 12) -> int:
        """The first window after this share of the stream: minute 5 of 60."""
        return int(np.searchsorted(self.times, self.times[-1] * share))

    def growth(self) -> float:
        """Percent of resident memory that came between `settled` and the end."""
        return 100 * (float(self.memory[-1]) / float(self.memory[self.settled()]) - 1)

    def cost(self, tenth: int) -> float:
        """Milliseconds of processor time per window in a tenth of the stream, 0 to 9."""
        bounds = np.linspace(0, len(self.cpu) - 1, 11).astype(int)[tenth : tenth + 2]
        return 1000 * float(np.diff(self.cpu[bounds])[0] / np.diff(bounds)[0])


def soak(engine: Engine, source: Endless, log: Path, seconds: float, stride: float) -> Soak:
    """Streams `source` to its end, with the routing log on, and looks at memory after every window."""
    marks, errors = [], 0
    with RouteLog(log) as lines, Stream(engine, source, log=lines, seconds=seconds, stride=stride) as stream:
        for event in stream:
            errors += (event.prediction is None) + event.dropped
            marks.append((event.end, resident(), time.process_time()))
    if len(marks) < 20:
        raise HardrouteError(f"only {len(marks)} windows; take more --minutes")
    times, memory, cpu = np.array(marks).T
    with log.open("rb") as written:
        return Soak(times, memory, cpu, errors, sum(1 for _ in written))


def resident() -> float:
    """MiB of memory that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        raise HardrouteError("resident memory is read from /proc, which this system lacks; run it on Linux") from None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@app.command()
def command(
    bundle: Annotated[Path, typer.Argument(help="Bundle that answers.")] = Path("models/zoo/motion"),
    minutes: Annotated[float, typer.Option(min=0.1, help="Length of the stream.")] = 60.0,
    video: Annotated[Path | None, typer.Option(help="File that is repeated; default: one of `motion`.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of a window.")] = 2.0,
    stride: Annotated[float, typer.Option(help="From a window's start to the next one's.")] = 1.0,
    realtime: Annotated[bool, typer.Option("--realtime", help="As slow as a camera.")] = False,
) -> None:
    """Exit code 0: memory grew by less than 5 %, and every window has its answer and its line. 1: otherwise."""
    video = video or open_set("motion:train=0,val=0,test=8").rows[0].path
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = stack.enter_context(Engine.load(bundle))
        began = time.perf_counter()
        source = Endless(video, 60 * minutes, realtime)
        found = soak(engine, source, folder / "route.jsonl", seconds, stride)
    settled, windows = found.settled(), len(found.times)
    typer.echo(f"{video.name} at {source.fps:g} frames/s, {minutes:g} minutes in {time.perf_counter() - began:.0f} s")
    typer.echo(f"{windows} windows of {seconds:g} s, one every {stride:g} s; {found.lines} lines in the routing log")
    for name, place in (("minute", settled), ("end", windows - 1), ("highest", int(found.memory.argmax()))):
        typer.echo(f"resident at {name:8} {found.times[place] / 60:5.1f} min: {found.memory[place]:7.1f} MiB")
    typer.echo(f"growth {found.growth():+.2f} % (goal below {GOAL:g} %)")
    typer.echo("CPU ms per window, tenth by tenth: " + " ".join(f"{found.cost(tenth):.2f}" for tenth in range(10)))
    if found.growth() >= GOAL or found.errors or found.lines < windows:
        typer.echo(f"FAILED: {found.errors} windows without an answer")
        raise typer.Exit(1)


if __name__ == "__main__":
    main(app)
