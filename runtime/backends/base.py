"""What the engine asks of an inference library."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

import numpy as np

INPUT: Final = "clip"  # what every network calls its input


class Session(Protocol):
    """One loaded network. Safe to call from several threads at once."""

    def run(self, clips: np.ndarray) -> np.ndarray:
        """Maps (N, 3, T, H, W) float32 in [0, 1], C-contiguous, to the (N, outputs) float32 of the network.

        Raises:
            BackendError: the library failed on this input.
        """


class Backend(Protocol):
    """An inference library with its settings: turns the bytes of an ONNX file into a session."""

    def load(self, model: bytes, name: str) -> Session:
        """Makes the session of one network.

        Args:
            model: the verified bytes of the file.
            name: the file's name, for messages and caches.

        Raises:
            BackendError: what was asked for cannot run on this machine; never another provider instead.
            BundleError: the library cannot use this file.
        """


@runtime_checkable
class Uint8Backend(Backend, Protocol):
    """A backend that can divide by 255 inside of the network, where that costs less than before it."""

    def load_uint8(self, model: bytes, name: str) -> Session:
        """As `load`, but the session's `run` takes (N, 3, T, H, W) uint8 in 0..255, C-contiguous."""


def brief(error: object) -> str:
    """What a library said, as one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
