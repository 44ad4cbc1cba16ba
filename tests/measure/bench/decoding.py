"""From file to decision: decoding against a bare read, in several threads, and each part's share of the whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from hardroute.runtime.clips import ClipContract, decode, to_network
from tests.measure.bench.measure import Ratio, compare
from tests.measure.bench.subject import Subject
from tests.measure.bench.videos import video_sets

LARGE = ClipContract(frames=16, height=112, width=112, resize="short-side-crop")
SPEED = 0.9  # of a bare sequential read, at least


def decoding(subject: Subject) -> list[Ratio]:
    sets, contract = video_sets(), subject.engine.contract
    rows = []
    for name, files in sets.items():
        for each in (contract, LARGE):
            ours = partial(_decode_all, files, each)
            goal = round(1 / SPEED, 2) if each is contract else None
            size = f"{each.frames}x{each.height}x{each.width}"
            rows.append(compare(f"{name}: decode to {size} / bare read", ours, partial(_read_all, files), goal=goal))
    name, files = next(iter(sets.items()))
    several = partial(_in_threads, files * 4, contract)
    one_by_one = partial(_decode_all, files * 4, contract)
    rows.append(compare(f"{name}: decode in {os.cpu_count()} threads / in one", several, one_by_one, turns=7))
    return rows + _shares(subject, name, files)


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
    """The shortest loop that sees every frame, with OpenCV's own settings."""
    for path in files:
        capture = cv2.VideoCapture(str(path))
        while capture.read()[0]:
            pass
        capture.release()
