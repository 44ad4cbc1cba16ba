"""What is measured: one bundle, as engine and as PyTorch twin, with labelled clips for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hardroute import Engine
from hardroute.models import VideoMoE, load_twin
from hardroute.runtime.backends import Session, open_backend
from hardroute.runtime.datasets import load_clips, open_set


@dataclass(frozen=True)
class Subject:
    """A bundle under measurement.

    Attributes:
        bundle: its folder. engine: loaded on the CPU.
        frames: (N, T, H, W, 3) uint8 clips of `motion`'s test split. labels: (N,).
    """

    bundle: Path
    engine: Engine
    frames: np.ndarray
    labels: np.ndarray

    @cached_property
    def twin(self) -> VideoMoE:
        return load_twin(self.bundle)

    @cached_property
    def sessions(self) -> tuple[Session, ...]:
        """The bare networks on the CPU: the router, then the experts."""
        library, bundle = open_backend("cpu"), self.engine.bundle
        return tuple(library.load(bundle.read(name), name) for name in bundle.manifest.networks)

    @classmethod
    @contextmanager
    def of(cls, bundle: Path) -> Iterator[Subject]:
        with Engine.load(bundle) as engine:
            clips = load_clips(open_set("motion:train=0,val=0,test=8"), engine.contract)
            yield cls(bundle, engine, clips.frames, clips.labels)
