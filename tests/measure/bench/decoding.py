"""From file to decision: decoding against a bare read, in the cage, by seeking, live; and each part's share."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from hardroute.runtime.clips import ClipContract, Limits, cage, decode, to_network
from hardroute.runtime.clips.preprocess import fit_frame
from hardroute.runtime.streams.cutting import Manner
from hardroute.runtime.streams.reader_process import IsolatedTake
from tests.measure.bench.measure import Ratio, compare
from tests.measure.bench.subject import Subject
from tests.measure.bench.videos import video_sets
from tests.support.videoserver import serving

LARGE = ClipContract(frames=16, height=112, width=112, resize="short-side-crop")
READ, SOUGHT, LIVE = 1.10, 0.125, 0.5  # of a bare read, of decoding all, of converting all; at most
CAGE_MS = 3.0  # of CPU a clip, at most
MINUTES, GOP, RATE = 10, 250, 25


def decoding(subject: Subject) -> list[Ratio]:
    sets, contract = video_sets(), subject.engine.contract
    rows = []
    for name, files in sets.items():
        for each in (contract, LARGE):
            ours = partial(_decode_all, files, each)
            goal = READ if each is contract else None
            size = f"{each.frames}x{each.height}x{each.width}"
            rows.append(compare(f"{name}: decode to {size} / bare read", ours, partial(_read_all, files), goal=goal))
        rows.append(_cage(name, files, contract))
    name, files = next(iter(sets.items()))
    several = partial(_in_threads, files * 4, contract)
    one_by_one = partial(_decode_all, files * 4, contract)
    rows.append(compare(f"{name}: decode in {os.cpu_count()} threads / in one", several, one_by_one, turns=7))
    with tempfile.TemporaryDirectory() as folder:
        video = long_video(Path(folder) / "long.mp4", MINUTES)
        rows.append(_sought(video, contract))
        short = long_video(Path(folder) / "short.ts", 1)
        rows.append(_live(short, contract))
    return rows + _shares(subject, name, files)


def long_video(path: Path, minutes: int) -> Path:
    """1920x1080 H.264, a still camera before which something moves; a keyframe every 250 frames."""
    rng = np.random.default_rng(0)
    image = np.repeat(np.repeat(rng.integers(0, 256, (68, 120, 3), np.uint8), 16, 0), 16, 1)[:1080]
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "x264-params": f"keyint={GOP}:min-keyint={GOP}:scenecut=0"}
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        packets = []
        for n in range(GOP):
            image[400:600, 4 * n : 4 * n + 200] = rng.integers(0, 256, 3)
            packets += stream.encode(av.VideoFrame.from_ndarray(image, "rgb24"))
        packets += stream.encode(None)
        kept = [(bytes(p), p.pts, p.dts, p.is_keyframe, p.time_base) for p in packets]
        shift = round(GOP / RATE / float(kept[0][4]))
        for again in range(minutes * 60 * RATE // GOP):
            for data, pts, dts, key, base in kept:
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, base
                packet.pts, packet.dts, packet.is_keyframe = pts + again * shift, dts + again * shift, key
                container.mux(packet)
    return path


def _sought(video: Path, contract: ClipContract) -> Ratio:
    limits = Limits(max_decode_seconds=600.0, max_cpu_seconds=600.0)
    decode(video, contract.model_copy(update={"seconds": 0.5}), limits)
    began = time.perf_counter()
    decode(video, contract, limits)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    _read_all([video])
    theirs = time.perf_counter() - began
    name = f"{contract.frames} samples of {MINUTES} minutes of 1080p / decode all"
    return Ratio.counted(name, 1000 * ours, 1000 * theirs, "ms", goal=SOUGHT)


def _cage(name: str, files: list[Path], contract: ClipContract) -> Ratio:
    def spent() -> float:
        return time.process_time() + sum(map(cage.cpu_seconds, cage.default.pids))

    decode(files[0], contract)
    cost = {False: 0.0, True: 0.0}
    rounds = 10
    for _ in range(rounds):
        for trusted in cost:
            began = spent()
            for path in files:
                decode(path, contract, trusted=trusted)
            cost[trusted] += spent() - began
    ours, theirs = (1000 * cost[trusted] / rounds / len(files) for trusted in (False, True))
    goal = round((theirs + CAGE_MS) / theirs, 3)
    return Ratio.counted(f"{name}: CPU of a clip in the cage / in this process", ours, theirs, "ms", goal=goal)


def _live(video: Path, contract: ClipContract) -> Ratio:
    data = video.read_bytes()
    manner = Manner("camera", contract, Limits(max_frames=10**6), 2.0, 2.0, live=True)
    with serving(lambda n, send: send(data), "video/mp2t") as server:
        steps = list(IsolatedTake(server.url, 60.0).steps(manner))
    frames, ours = sum(step.frames for step in steps), sum(step.milliseconds or 0.0 for step in steps)
    began = time.process_time()
    with av.open(str(video)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            fit_frame(frame.to_ndarray(format="rgb24", threads=1), contract)
    theirs = 1000 * (time.process_time() - began)
    seconds = frames / RATE
    name = f"1080p25 live, CPU a second ({len(steps) / frames:.3f} messages a frame) / every frame converted"
    return Ratio.counted(name, ours / seconds, theirs / seconds, "ms", goal=LIVE)


def _shares(subject: Subject, name: str, files: list[Path]) -> list[Ratio]:
    contract, (router, *experts) = subject.engine.contract, subject.sessions
    clips = [decode(path, contract).frames[None] for path in files]
    inputs = [to_network(clip) for clip in clips]
    chosen = [experts[int(router.run(x).argmax())] for x in inputs]
    parts: dict[str, Callable[[], object]] = {
        "decode": partial(_decode_all, files, contract),
        "preprocess": lambda: [to_network(clip) for clip in clips],
        "route": lambda: [router.run(x) for x in inputs],
        "expert": lambda: [expert.run(x) for expert, x in zip(chosen, inputs, strict=True)],
    }

    def whole() -> None:
        for path in files:
            subject.engine.predict(path)

    return [compare(f"{name}: {part} / file to decision", call, whole) for part, call in parts.items()]


def _decode_all(files: list[Path], contract: ClipContract) -> list[np.ndarray]:
    return [decode(path, contract).frames for path in files]


def _in_threads(files: list[Path], contract: ClipContract) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: decode(path, contract), files))


def _read_all(files: list[Path]) -> None:
    """The shortest loop that has every frame's pixels, with PyAV's own settings."""
    for path in files:
        with av.open(str(path), metadata_errors="ignore") as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")
