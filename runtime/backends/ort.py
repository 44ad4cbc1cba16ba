"""onnxruntime, with its execution providers by name."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hardroute.runtime.backends.base import INPUT, Session, brief
from hardroute.runtime.backends.cache import cache_folder
from hardroute.runtime.backends.ortgpu import BoundSession
from hardroute.runtime.errors import BackendError, BundleError

_FATAL_ONLY: Final = 4


@dataclass(frozen=True)
class Provider:
    """How one execution provider is asked for.

    Attributes:
        chain: (onnxruntime's name, its options for a model) in order of preference; the first one must run.
        needs: what has to be installed, for the message when it does not run.
        libraries: shared libraries that it loads (Linux); the missing one can then be named.
        prepare: called with the onnxruntime module before the first session.
    """

    chain: tuple[tuple[str, Callable[[str, bytes], dict[str, str]]], ...]
    needs: str
    libraries: tuple[str, ...] = ()
    prepare: Callable[[Any], None] = lambda ort: None


def _no_options(name: str, model: bytes) -> dict[str, str]:
    return {}


def _full_precision(name: str, model: bytes) -> dict[str, str]:
    # On by default, TF32 keeps 10 bits of a factor: another network than the one that was certified.
    return {"use_tf32": "0"}


def _engine_cache(name: str, model: bytes) -> dict[str, str]:
    # TensorRT's cache mixes engines of equal graph names: each network, and each version of it, has a prefix.
    folder = cache_folder("tensorrt")
    prefix = f"{Path(name).stem}-{hashlib.sha256(model).hexdigest()[:16]}"
    return {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": prefix,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }


def _preload_cuda(ort: Any) -> None:
    # Finds the libraries of the nvidia-* wheels; without wheels the system's loader path is searched.
    # It prints what it does not find, but what is missing is said in our own error line.
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        ort.preload_dlls()


def _preload_tensorrt(ort: Any) -> None:
    _preload_cuda(ort)
    with contextlib.suppress(ImportError):  # its wheel is one way to have the libraries, not the only one
        importlib.import_module("tensorrt")


_CUDA = ("CUDAExecutionProvider", _full_precision)
# What onnxruntime-gpu 1.31 links; the driver first, since nothing else helps without it.
_CUDA_LIBRARIES = ("libcuda.so.1", "libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9")
_GPU_NEEDS = "an NVIDIA GPU and driver, the extra `hardroute[gpu]` (onnxruntime-gpu), CUDA 13 and cuDNN 9"

PROVIDERS: Final = {
    "cpu": Provider((("CPUExecutionProvider", _no_options),), "the extra `hardroute[cpu]`"),
    "cuda": Provider((_CUDA,), _GPU_NEEDS, _CUDA_LIBRARIES, _preload_cuda),
    "tensorrt": Provider(
        (("TensorrtExecutionProvider", _engine_cache), _CUDA),
        f"{_GPU_NEEDS}, and TensorRT 10 (the extra `hardroute[tensorrt]`)",
        (*_CUDA_LIBRARIES, "libnvinfer.so.10", "libnvonnxparser.so.10"),
        _preload_tensorrt,
    ),
}


class OnnxRuntime:
    """onnxruntime on one execution provider, or an error; never silently on another one.

    Args:
        name: a key of `PROVIDERS`.
        threads: threads of one session; None: one per physical core.

    Raises:
        BackendError: onnxruntime is not installed, or was built without the provider.
    """

    def __init__(self, name: str, threads: int | None = None) -> None:
        self.name = name
        self.threads = threads
        self._provider = PROVIDERS[name]
        try:
            import onnxruntime  # heavy, and not there in every installation
        except ImportError as error:
            raise BackendError(
                f"onnxruntime cannot be imported ({error}); install one of the extras: "
                "`pip install hardroute[cpu]` or `pip install hardroute[gpu]`"
            ) from None
        self._ort = onnxruntime
        if self._provider.chain[0][0] not in self._ort.get_available_providers():
            raise self._unavailable("this onnxruntime was built without it")
        self._provider.prepare(self._ort)
        # onnxruntime would find out as well, but says so in a page of log lines.
        if missing := [library for library in self._provider.libraries if not _loads(library)]:
            raise self._unavailable(f"{missing[0]} cannot be loaded")

    def load(self, model: bytes, name: str) -> Session:
        """See `Backend.load`."""
        wanted = self._provider.chain[0][0]
        try:
            session = self._ort.InferenceSession(
                model,
                self._options(),
                providers=[(provider, options(name, model)) for provider, options in self._provider.chain],
                enable_fallback=0,
            )
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            if wanted == "CPUExecutionProvider":
                raise BundleError(f"{name}: onnxruntime cannot load it ({brief(error)})") from None
            raise self._unavailable(brief(error)) from None
        # A provider whose libraries are missing is dropped with no more than a log line.
        if session.get_providers()[0] != wanted:
            raise self._unavailable("its libraries do not load here")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if [(i.name, i.type) for i in inputs] != [(INPUT, "tensor(float)")] or len(outputs) != 1:
            raise BundleError(f"{name} must take one float32 input {INPUT!r} and have one output")
        if wanted == "CPUExecutionProvider":
            return OnnxRuntimeSession(session, outputs[0].name, name)
        return BoundSession(self._ort, session, outputs[0].name, name)

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = self.threads or 0
        # By default idle threads spin. Router and experts have threads of their own and run one after the
        # other, so those that wait would take the cores from the one that computes: 3 to 8 times slower when
        # measured on two busy cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _FATAL_ONLY  # what goes wrong is raised; stderr stays one line
        return options

    def _unavailable(self, reason: str) -> BackendError:
        return BackendError(
            f"backend {self.name!r} cannot run here: {reason}; it needs {self._provider.needs}; "
            "or choose another backend"
        )


class OnnxRuntimeSession:
    """One network in onnxruntime. See `Session`."""

    def __init__(self, session: Any, output: str, name: str) -> None:
        self._session = session
        self._outputs = [output]
        self._name = name

    def run(self, clips: np.ndarray) -> np.ndarray:
        """See `Session.run`."""
        try:
            return self._session.run(self._outputs, {INPUT: clips})[0]
        except Exception as error:  # as above
            raise BackendError(f"{self._name}: onnxruntime failed ({brief(error)})") from None


def _loads(library: str) -> bool:
    if sys.platform != "linux":
        return True  # it has other names there; onnxruntime finds out by itself
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
