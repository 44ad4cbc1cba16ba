"""`python -m tests.measure.caged_service GOOD... --hostile BAD`: what the cage costs a service, and what bombs do.

Two services answer the same videos in turn, one that decodes in the cage and one that decodes in its own process; then
hostile videos come among them, and the memory of the service and its children together is watched.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import typer

from hardroute.runtime.cli import main
from tests.support.paths import ROOT

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# `serve` as it is, and with the decoder of trusted files in the caged one's place.
LAUNCH = """
import functools, sys
import hardroute.runtime.service.service as service
from hardroute.cli import load
from hardroute.runtime.cli import main
if sys.argv.pop(1) == "trusted":
    service.decode = functools.partial(service.decode, trusted=True)
main(load("serve"))
"""


@dataclass(frozen=True)
class Server:
    """A running service and its address."""

    process: subprocess.Popen[str]
    url: str

    @property
    def family(self) -> list[int]:
        """The process and its children."""
        # Of every thread: a child belongs to the one that started it.
        threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [self.process.pid, *(int(pid) for thread in threads for pid in thread.read_text().split())]

    def cpu(self) -> float:
        """Seconds that the service and its living children have computed."""
        return sum(_cpu(pid) for pid in self.family)

    def resident(self) -> float:
        """MiB of the service and its children together; pages that they share count in each."""
        return sum(_resident(pid) for pid in self.family)


@contextlib.contextmanager
def serving(bundle: str, how: str) -> Iterator[Server]:
    """A service that decodes `how`: "caged" or "trusted"."""
    command = [sys.executable, "-c", LAUNCH, how, bundle, "--port", "0", "--max-concurrent", "64"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    with process:
        try:
            assert process.stdout
            for line in process.stdout:
                if found := re.search(r"http://[\d.:]+", line):
                    yield Server(process, found[0])
                    break
        finally:
            process.send_signal(signal.SIGTERM)


def answered(server: Server, videos: Sequence[bytes], clients: int, seconds: float) -> tuple[int, int]:
    """How many requests got 200, and how many something else, from so many clients in so many seconds."""
    turn, until = itertools.count(), time.monotonic() + seconds

    def client(_: int) -> list[int]:
        codes = []
        with httpx.Client(timeout=120) as session:
            while time.monotonic() < until:
                body = videos[next(turn) % len(videos)]
                headers = {"content-type": "application/octet-stream"}
                codes.append(session.post(f"{server.url}/v1/predict", content=body, headers=headers).status_code)
        return codes

    with ThreadPoolExecutor(clients) as pool:
        codes = [code for own in pool.map(client, range(clients)) for code in own]
    return codes.count(200), len(codes) - codes.count(200)


@app.command()
def command(
    good: Annotated[list[Path], typer.Argument(help="Videos that can be answered.")],
    hostile: Annotated[list[Path], typer.Option(help="Videos that ask for too much; may be repeated.")],
    bundle: Annotated[str, typer.Option(help="Bundle that answers.")] = "motion",
    clients: Annotated[int, typer.Option(min=1, help="At a time.")] = 8,
    seconds: Annotated[float, typer.Option(min=1, help="Of each turn.")] = 10.0,
    turns: Annotated[int, typer.Option(min=1, help="Of each service.")] = 3,
) -> None:
    """Prints answers a second and CPU for each, caged over trusted, and the peak memory under hostile load."""
    videos, bad = [path.read_bytes() for path in good], [path.read_bytes() for path in hostile]
    with serving(bundle, "caged") as caged, serving(bundle, "trusted") as trusted:
        found: dict[str, list[tuple[float, float]]] = {"caged": [], "trusted": []}
        for server in (caged, trusted):
            answered(server, videos, clients, 2.0)
        for _ in range(turns):
            for name, server in (("caged", caged), ("trusted", trusted)):
                began, spent = time.monotonic(), server.cpu()
                right, _wrong = answered(server, videos, clients, seconds)
                rate = right / (time.monotonic() - began)
                found[name].append((rate, 1000 * (server.cpu() - spent) / max(1, right)))
        for name, turns_of in found.items():
            rates, costs = zip(*turns_of, strict=True)
            typer.echo(f"{name}: {statistics.median(rates):.1f} answers/s, {statistics.median(costs):.1f} CPU-ms each")
        ratios = [ours[0] / theirs[0] for ours, theirs in zip(found["caged"], found["trusted"], strict=True)]
        typer.echo(f"caged over trusted: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")

        peak, over = 0.0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not over.wait(0.05):
                with contextlib.suppress(OSError):  # a child ended meanwhile
                    peak = max(peak, caged.resident())

        before = caged.resident()
        watcher = threading.Thread(target=watch)
        watcher.start()
        right, refused = answered(
            caged, [each for pair in zip(itertools.cycle(videos), bad) for each in pair], clients, 2 * seconds
        )
        over.set()
        watcher.join()
        typer.echo(
            f"under hostile load: {right} answered, {refused} refused; {before:.0f} MiB before, {peak:.0f} at most"
        )


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main(app)
