"""`python -m tests.measure.kill_log --rounds 50`: is every acknowledged line of a routing log there after SIGKILL?

A child writes lines as fast as it can and says the number of each once `append` has returned, or the future of `submit`
is done. It is killed at a random moment. Then the log must open again, its chain must hold, every line that the child
has acknowledged must be in it, and the next child goes on in the same log. Linux seldom tears a line when it kills, so
after some rounds the beginning of a line is planted, as a power cut or another file system may leave it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hardroute.runtime.cli import main
from hardroute.runtime.errors import HardrouteError
from hardroute.runtime.routelog import EventRecord, RouteLog
from hardroute.runtime.routelog.verify import verify_log
from tests.support.paths import ROOT

PER_LOG = 10  # rounds; then another log begins, for each round checks it from its first line
MAX_BYTES = 400_000  # small, so that kills hit rotations as well
LENGTHS = (10, 300, 9_000, 60_000)  # of a record: the system may tear a line that spans pages

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Tally:
    """What the rounds have shown so far."""

    rounds: int = 0
    acknowledged: int = 0
    rotations: int = 0
    planted: int = 0
    torn: int = 0


def write_for_ever(path: Path, submit: bool, seed: int, acknowledge: int) -> None:
    """The child: writes until it is killed, and writes each line's number to the pipe."""
    chance = np.random.default_rng(seed)
    records = [EventRecord.now("error", error="x" * length) for length in LENGTHS]

    def say(seq: int) -> None:
        os.write(acknowledge, b"%d\n" % seq)

    with RouteLog(path, max_bytes=MAX_BYTES) as log:
        say(log.seq)
        while True:
            many = [records[n] for n in chance.integers(len(records), size=16)]
            if submit:
                first = log.seq
                for n, future in enumerate([log.submit(one) for one in many], 1):
                    future.result()
                    say(first + n)
            else:
                for one in many:
                    log.append(one)
                    say(log.seq)


def kill_once(path: Path, chance: np.random.Generator, longest: float) -> int:
    """One round's child, killed within `longest` seconds of its first line. Returns the last acknowledged number."""
    read, write = os.pipe()
    code = "from tests.measure.kill_log import write_for_ever as go; from pathlib import Path; import sys; a = sys.argv"
    code += "; go(Path(a[1]), a[2] == '1', int(a[3]), int(a[4]))"
    words = [str(path), str(chance.integers(2)), str(chance.integers(2**31)), str(write)]
    with subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, pass_fds=[write]) as child:
        os.close(write)
        said = b""
        with os.fdopen(read, "rb", buffering=0) as pipe:
            # Until it has opened the log: importing takes longer than all that is to be hit.
            said += pipe.read(4096) or b""
            until = time.monotonic() + chance.uniform(0, longest)
            while (left := until - time.monotonic()) > 0 and child.poll() is None:
                if select.select([pipe], [], [], left)[0]:
                    said = said[-40:] + (pipe.read(4096) or b"")
            child.send_signal(signal.SIGKILL)
            while more := pipe.read(4096):
                said = said[-40:] + more
    if child.returncode != -signal.SIGKILL:
        raise HardrouteError(f"the child ended by itself, with {child.returncode}")
    return int(said.rpartition(b"\n")[0].rpartition(b"\n")[2])


def rounds(path: Path, chance: np.random.Generator, tally: Tally, count: int, longest: float = 0.15) -> None:
    """Kills a writer of a new log `count` times. Raises HardrouteError if the log is not what it must be."""
    last = torn = 0
    for _ in range(count):
        acknowledged = kill_once(path, chance, longest)
        verified = verify_log([path])  # as the crash left it
        if not verified.tail and chance.random() < 0.5:
            tally.planted += 1
            line = b'{"seq": %d, "prev": "%s", "schema": 2' % (verified.head.seq + 1, verified.head.hash.encode())
            with path.open("ab") as file:
                file.write(line[: chance.integers(1, len(line))])
            verified = verify_log([path])
        torn += verified.tail > 0
        with RouteLog(path, max_bytes=MAX_BYTES) as log:
            reopened = log.seq
            log.append(EventRecord.now("error", error=f"killed after {acknowledged}"))
            head = (log.head, log.seq)
        report = verify_log([path], head=head)
        if verified.broken or report.broken or report.tail or report.first != 1:
            raise HardrouteError(f"round {tally.rounds}: {[*verified.breaks, *report.breaks]}")
        if not acknowledged <= reopened == verified.head.seq:
            raise HardrouteError(f"round {tally.rounds}: line {acknowledged} was acknowledged, {reopened} is the last")
        if report.torn != torn:
            raise HardrouteError(f"round {tally.rounds}: {torn} lines were torn, the log tells of {report.torn}")
        tally.rounds += 1
        tally.acknowledged += acknowledged - last
        last = head[1]
    tally.torn += torn
    tally.rotations += report.files - 1


@app.command()
def kill(
    count: Annotated[int, typer.Option("--rounds", help="how often to kill", min=1)] = 50,
    seed: Annotated[int, typer.Option(help="of the moments; the machine adds chance of its own")] = 0,
) -> None:
    """Kill a writer at random moments and check its log each time."""
    chance, tally = np.random.default_rng(seed), Tally()
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, count, PER_LOG):
            rounds(Path(folder) / f"log-{first}", chance, tally, min(PER_LOG, count - first))
    typer.echo(
        f"killed {tally.rounds} times: the log opened again each time, its chain held, and all {tally.acknowledged} "
        f"acknowledged lines were there\n{tally.rotations} rotations; {tally.torn} torn lines mended, "
        f"{tally.planted} of them planted"
    )


if __name__ == "__main__":
    main(app)
