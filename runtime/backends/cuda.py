"""The little of CUDA that a backend needs besides its inference library: memory, a stream, the device's name.

Through NVIDIA's `cuda-bindings` (https://nvidia.github.io/cuda-python), whose functions return (error, values...).
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from hardroute.runtime.errors import BackendError


class Cuda:
    """The first CUDA device.

    Attributes:
        device: its name and compute capability, such as "NVIDIA H100 80GB HBM3 9.0".

    Raises:
        BackendError: no bindings, no driver or no device; the message says which.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime  # there only with the extra
        except ImportError as error:
            raise BackendError(f"cuda-bindings cannot be imported ({error})") from None
        self._runtime = runtime
        if not self.call("cudaGetDeviceCount"):
            raise BackendError("no NVIDIA GPU is visible")
        properties = self.call("cudaGetDeviceProperties", 0)
        self.device = f"{properties.name.decode()} {properties.major}.{properties.minor}"

    def call(self, function: str, *arguments: Any) -> Any:
        """Calls a function of the CUDA runtime and returns its value.

        Raises:
            BackendError: naming the function and the error.
        """
        try:
            error, *values = getattr(self._runtime, function)(*arguments)
        except RuntimeError as missing:  # what the bindings raise where there is no driver to load
            raise BackendError(f"{function}: {missing}") from None
        if error:
            raise BackendError(f"{function}: {getattr(error, 'name', error)}")
        return values[0] if values else None

    def use(self) -> None:
        """Makes the device this thread's; a new thread of Python has none."""
        self.call("cudaSetDevice", 0)

    def allocate(self, owner: object, size: int) -> int:
        """Address of `size` bytes on the device, which live as long as `owner`."""
        address = int(self.call("cudaMalloc", size))
        weakref.finalize(owner, self._runtime.cudaFree, address)
        return address

    def stream(self, owner: object) -> int:
        """Handle of a new stream, which lives as long as `owner`."""
        stream = self.call("cudaStreamCreate")
        weakref.finalize(owner, self._runtime.cudaStreamDestroy, stream)
        return int(stream)

    def upload(self, array: np.ndarray, address: int, stream: int) -> None:
        """Copies a C-contiguous array to the device; the array must stay until `wait`."""
        self._copy(address, array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice", stream)

    def download(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copies from the device into a C-contiguous array; it holds the values after `wait`."""
        self._copy(array.ctypes.data, address, array.nbytes, "cudaMemcpyDeviceToHost", stream)

    def wait(self, stream: int) -> None:
        """Returns when all that was put on the stream is done."""
        self.call("cudaStreamSynchronize", stream)

    def _copy(self, to: int, source: int, size: int, kind: str, stream: int) -> None:
        self.call("cudaMemcpyAsync", to, source, size, getattr(self._runtime.cudaMemcpyKind, kind), stream)
