"""`python -m tests.measure.fuzz_video --count 10000 --seed 0`: mutated videos through the cage.

Says how many gave frames, were refused, or ended their decoder; how much memory the processes took, and how long the
longest took. Exit code 0: this process lives, nothing hung, and every child kept its bound.
"""

from __future__ import annotations

import collections
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import typer

from hardroute.runtime.cli import main
from hardroute.runtime.clips import ClipContract, Limits, cage, decode
from hardroute.runtime.errors import ClipError
from tests.support.numbered import Video

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
CONTRACT = ClipContract(frames=6, height=32, width=32)
LIMITS = Limits(max_decode_seconds=10.0, max_cpu_seconds=10.0, max_memory=512 * 2**20)
INTERLACED = {"x264-params": "interlaced=1"}
SEEDS = {
    "mp4 h264": Video("mp4", "libx264", 20),
    "mp4 h264 interlaced": Video("mp4", "libx264", 20, options=INTERLACED),
    "mp4 h264 fragments": Video("mp4", "libx264", 20, muxer={"movflags": "frag_keyframe+empty_moov"}),
    "mp4 h264 audio": Video("mp4", "libx264", 20, audio=0.8),
    "mov prores": Video("mov", "prores_ks", 6, pixels="yuv422p10le"),
    "mov mjpeg": Video("mov", "mjpeg", 10, pixels="yuvj420p"),
    "mp4 hevc": Video("mp4", "libx265", 20),
    "mp4 av1": Video("mp4", "libsvtav1", 20),
    "mp4 mpeg4": Video("mp4", "mpeg4", 20, options={"bf": "2"}),
    "3gp h263": Video("3gp", "mpeg4", 20),
    "mkv h264": Video("matroska", "libx264", 20),
    "mkv ffv1": Video("matroska", "ffv1", 8),
    "mkv hevc": Video("matroska", "libx265", 20),
    "webm vp8": Video("webm", "libvpx", 20),
    "webm vp9": Video("webm", "libvpx-vp9", 20),
    "ts h264": Video("mpegts", "libx264", 20),
    "ts mpeg2": Video("mpegts", "mpeg2video", 20, options={"flags": "+ilme+ildct"}),
    "m2ts h264": Video("mpegts", "libx264", 20, muxer={"mpegts_m2ts_mode": "1"}),
    "ps mpeg1": Video("mpeg", "mpeg1video", 20),
    "ps mpeg2": Video("mpeg", "mpeg2video", 20, options={"bf": "2"}),
    "m2v mpeg2": Video("mpeg2video", "mpeg2video", 20),
    "avi mpeg4": Video("avi", "mpeg4", 20, options={"bf": "2"}),
    "avi mjpeg": Video("avi", "mjpeg", 10, pixels="yuvj420p"),
    "avi huffyuv": Video("avi", "huffyuv", 6, pixels="yuv422p"),
    "flv flv1": Video("flv", "flv", 20),
    "flv h264": Video("flv", "libx264", 20),
    "asf wmv2": Video("asf", "wmv2", 20),
    "asf msmpeg4": Video("asf", "msmpeg4", 20),
    "mxf mpeg2": Video("mxf", "mpeg2video", 20),
    "ogg vp8": Video("ogg", "libvpx", 20),
}
SIGNAL = re.compile(r"ended its decoder \(([^)]+)\)")


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to three kinds of damage; its first bytes stay, or nothing would ever be opened."""
    for _ in range(int(rng.integers(1, 4))):
        made = bytearray(data)
        at = int(rng.integers(16, len(made)))
        head = int(rng.integers(16, min(len(made), 1500)))
        size = int(rng.integers(1, 200))
        kind = int(rng.integers(0, 9))
        if kind == 0:  # bits
            for place in rng.integers(16, len(made), size=int(rng.integers(1, 40))):
                made[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:  # bytes of the header
            for place in rng.integers(4, min(len(made), 1500), size=int(rng.integers(1, 12))):
                made[place] = int(rng.integers(0, 256))
        elif kind == 2:  # numbers at their limits
            value = [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1, 0xFFFF][int(rng.integers(0, 6))]
            made[head : head + 4] = value.to_bytes(4, ("big", "little")[int(rng.integers(0, 2))])
        elif kind == 3:
            del made[at:]
        elif kind == 4:
            del made[at : at + size]
        elif kind == 5:
            made[at:at] = made[head : head + size]
        elif kind == 6:
            made[at : at + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        elif kind == 7:  # another file's
            begin = int(rng.integers(0, len(other)))
            made[at : at + size] = other[begin : begin + size]
        else:
            made[at : at + size] = bytes(size)
        data = bytes(made) if len(made) > 32 else data
    return data


def memory(pid: int, field: str) -> float:
    """MiB of `VmHWM`, `VmPeak` or `VmRSS` of a process; 0 where it has gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


@app.command()
def command(
    count: Annotated[int, typer.Option(min=1, help="Mutated files.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the mutations.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Folder for the files that ended a decoder.")] = None,
) -> None:
    """Mutates small videos of many containers and codecs and decodes each in the cage."""
    seeds = {name: video.data() for name, video in SEEDS.items()}
    names, rng = list(seeds), np.random.default_rng(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    worst: tuple[float, str] = (0.0, "")
    peak = space = 0.0
    late = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        before, began = 0.0, time.monotonic()
        for number in range(count):
            name = names[number % len(names)]
            data = mutated(seeds[name], seeds[names[int(rng.integers(0, len(names)))]], rng)
            path.write_bytes(data)
            started = time.monotonic()
            try:
                decode(path, CONTRACT, LIMITS, allow_short=bool(number % 2))
                outcome = "frames"
            except ClipError as error:
                ended = SIGNAL.search(str(error))
                outcome = f"decoder ended by {ended[1]}" if ended else "refused"
                outcome = "time" if "longer than" in str(error) or "of CPU" in str(error) else outcome
                outcome = "memory" if "more memory" in str(error) else outcome
                if keep and (ended or outcome == "time"):
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}-{number}-{name.replace(' ', '-')}").write_bytes(data)
            spent = time.monotonic() - started
            outcomes[outcome] += 1
            late += spent > LIMITS.max_decode_seconds + cage.START_SECONDS
            worst = max(worst, (spent, f"{name} {number}"))
            for pid in cage.default.pids:
                peak, space = max(peak, memory(pid, "VmHWM")), max(space, memory(pid, "VmPeak"))
            if number == min(count - 1, 200):
                before = memory(os.getpid(), "VmRSS")
            if number % 1000 == 999:
                typer.echo(f"{number + 1}: {dict(outcomes)}, {time.monotonic() - began:.0f} s", err=True)
    after = memory(os.getpid(), "VmRSS")
    typer.echo(
        f"{count} files of {len(seeds)} pairs, seed {seed}, {time.monotonic() - began:.0f} s; PyAV {av.__version__}"
    )
    for outcome, times in sorted(outcomes.items()):
        typer.echo(f"{outcome:32} {times:7}")
    typer.echo(f"crashes of this process 0, hangs {late}; longest {worst[0]:.2f} s ({worst[1]})")
    typer.echo(f"child, most: {peak:.0f} MiB resident, {space:.0f} MiB of addresses")
    typer.echo(f"this process: {before:.0f} MiB resident after 200 files, {after:.0f} MiB at the end")
    if late:
        raise typer.Exit(1)


if __name__ == "__main__":
    main(app)
