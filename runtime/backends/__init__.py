"""Inference libraries behind one protocol. A new one is a class with `load` and a row in `BACKENDS`.

"tensorrt" is onnxruntime's TensorRT provider, "trt" TensorRT itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from hardroute.runtime.backends.base import Backend, Session, Uint8Backend
from hardroute.runtime.backends.openvino import PRECISIONS as OPENVINO_PRECISIONS
from hardroute.runtime.backends.openvino import OpenVino
from hardroute.runtime.backends.ort import PROVIDERS, OnnxRuntime
from hardroute.runtime.backends.tensorrt import PRECISIONS as TENSORRT_PRECISIONS
from hardroute.runtime.backends.tensorrt import TensorRt
from hardroute.runtime.errors import BackendError

__all__ = [
    "AUTO",
    "BACKENDS",
    "Backend",
    "OnnxRuntime",
    "OpenVino",
    "Session",
    "TensorRt",
    "Uint8Backend",
    "open_backend",
]

AUTO: Final = "auto"  # not a backend: `hardroute.runtime.inference.backend_selection` chooses one
BACKENDS: Final[dict[str, Callable[[int | None], Backend]]] = {
    **{name: partial(OnnxRuntime, name) for name in PROVIDERS},
    **{name: partial(OpenVino, name) for name in OPENVINO_PRECISIONS},
    **{name: partial(TensorRt, name) for name in TENSORRT_PRECISIONS},
}


def open_backend(name: str, threads: int | None = None) -> Backend:
    """The backend of that name.

    Args:
        name: a key of `BACKENDS`.
        threads: CPU threads that one network may use at a time; None leaves it to the library (one per core).

    Raises:
        BackendError: unknown name (the message lists the known ones), or not available on this machine.
    """
    if name not in BACKENDS:
        raise BackendError(f"unknown backend {name!r}; known: {', '.join([AUTO, *BACKENDS])}")
    if threads is not None and threads < 1:
        raise BackendError(f"threads must be at least 1, got {threads}")
    return BACKENDS[name](threads)
