"""Small runs for tests of training: clips with a known answer, settings of seconds, a reporter that keeps all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from hardroute.models import VideoMoE
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import DataError
from hardroute.training.loop import Trainer
from hardroute.training.losses import Noise, attacked, loss_at
from hardroute.training.methods import Step
from hardroute.training.run import EpochRecord, Run, RunRecord
from hardroute.training.settings import FitSettings

SMALL: dict[str, Any] = {
    "data": "none",
    "experts": 2,
    "width": 4,
    "router_width": 2,
    "blocks": (1, 1, 0, 0),
    "frames": 4,
    "size": 8,
    "batch": 8,
    "inner_steps": 2,
    "shift": 0,
    "average": 0.5,
    "validate_clips": 8,
}


class Silent:
    """A reporter that keeps what it is told, and can stop the run at a given batch."""

    def __init__(self, stop: tuple[int, str, int] | None = None) -> None:
        self.stop = stop
        self.records: list[EpochRecord] = []
        self.warnings: list[str] = []
        self.progress: list[float] = []

    def batch(self, epoch: int, step: str, done: int, total: int, loss: float, progress: float) -> None:
        self.progress.append(progress)
        if (epoch, step, done) == self.stop:
            raise KeyboardInterrupt

    def epoch(self, record: EpochRecord) -> None:
        self.records.append(record)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def clip_arrays(frames: np.ndarray, labels: np.ndarray) -> ClipArrays:
    names = tuple(f"{i}.avi" for i in range(len(labels)))
    return ClipArrays(frames=frames, labels=labels, files=names, sha256=names, classes=("a", "b"))


def two_signals(n: int, seed: int) -> ClipArrays:
    """Clips that show their class twice: in faint stripes that never lie, and in a bright half that lies in 20 %.

    The stripes are 6/255 strong, so that a perturbation of 8/255 can repaint them; the halves it cannot.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=n)
    shown = np.where(rng.random(n) < 0.2, 1 - labels, labels)
    frames = rng.integers(108, 148, (n, 4, 8, 8, 3)).astype(int)
    half = np.where(np.arange(8) < 4, 1, -1)[None, None, None, :, None] * (1 - 2 * shown)[:, None, None, None, None]
    stripes = np.where(np.arange(8) % 2, 1, -1)[None, None, :, None, None] * (1 - 2 * labels)[:, None, None, None, None]
    return clip_arrays(np.clip(frames + 25 * half + 6 * stripes, 0, 255).astype(np.uint8), labels)


def loss_of(step: Step, model: VideoMoE, x: Tensor, y: Tensor, eps: float, fit: FitSettings, noise: Noise) -> Tensor:
    """The outer loss of one step where its own attack leads."""
    return loss_at(step, model, x, y, attacked(step, model, x, y, eps, fit, noise), fit)


def new_run(root: Path, **settings: Any) -> Run:
    """A run's folder for settings that differ from SMALL in `settings`, on the classes of `two_signals`."""
    fit = FitSettings(**{**SMALL, **settings})
    return Run.create(root, RunRecord(settings=fit, classes=("a", "b"), tools={}))


def train(root: Path, reporter: Silent | None = None, **settings: Any) -> Run:
    """The run in `root`, or a new one, trained to its end on 48 clips."""
    try:
        run = Run.open(root)
    except DataError:
        run = new_run(root, **settings)
    Trainer(run, two_signals(48, 0), two_signals(24, 1), reporter or Silent()).go()
    return run
