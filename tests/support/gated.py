"""A backend that a test holds up, so that it decides what gathers meanwhile, and an engine on it.

A module takes the fixtures by `backend, engine = gated.backend, gated.engine`, and has a fixture `tiny` of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from hardroute import Engine
from hardroute.runtime.backends import OnnxRuntime, Session
from hardroute.runtime.errors import BackendError
from tests.support.bundles import TinyBundle

PATIENCE = 30.0  # seconds; only a test that fails waits so long


class GatedBackend:
    """onnxruntime whose experts wait at a gate.

    gate: open at first. entered: released for each run that came to the gate. runs: for each network, how many clips
    each of its runs had. broken: every run fails. poison: a run with a clip whose first red value is this, in [0, 1],
    fails.
    """

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.runs: dict[str, list[int]] = {}
        self.broken = False
        self.poison: float | None = None
        self._library = OnnxRuntime("cpu", threads=1)

    def load(self, model: bytes, name: str) -> Session:
        session, backend = self._library.load(model, name), self
        runs = self.runs.setdefault(name, [])

        class Gated:
            def run(self, clips: np.ndarray) -> np.ndarray:
                if name != "router.onnx":
                    backend.entered.release()
                    assert backend.gate.wait(PATIENCE)
                runs.append(len(clips))
                if backend.broken:
                    raise BackendError("broken")
                if backend.poison is not None and (clips[:, 0, 0, 0, 0] == backend.poison).any():
                    raise BackendError("poisoned")
                return session.run(clips)

        return Gated()


@pytest.fixture
def backend() -> GatedBackend:
    return GatedBackend()


@pytest.fixture
def engine(tiny: TinyBundle, backend: GatedBackend) -> Iterator[Engine]:
    with Engine.load(tiny.root, backend, verify=False) as engine:
        yield engine
