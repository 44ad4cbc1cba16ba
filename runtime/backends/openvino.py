"""OpenVINO on the CPU: of the libraries here the fastest in fp32, and in bf16 where that was asked for."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np

from hardroute.runtime.backends.base import INPUT, brief
from hardroute.runtime.errors import BackendError, BundleError

# Left to itself, OpenVINO computes in bf16 wherever the processor can, and logits then move by several hundredths.
PRECISIONS: Final = {"openvino": "f32", "openvino-bf16": "bf16"}


class OpenVino:
    """OpenVINO's CPU device in a stated precision.

    One compiled network serves every batch size. Compiled anew for a fixed size it was at most 0.05 ms quicker a call,
    and holds its weights twice. Nor did clips spread over several streams gain anything that could be told from noise.
    Nothing is cached on the disk; compiling takes a tenth of a second.

    Args:
        name: a key of `PRECISIONS`.
        threads: threads of one network at a time; None: one per core.

    Raises:
        BackendError: OpenVINO is not installed, or this processor has no bf16.
    """

    def __init__(self, name: str, threads: int | None = None) -> None:
        self.name = name
        self._precision = PRECISIONS[name]
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": self._precision,
            # Router and expert take turns; pinned to cores, their threads could not go where a core is free.
            "ENABLE_CPU_PINNING": False,
        }
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        try:
            import openvino  # heavy, and not there in every installation
        except ImportError as error:
            raise BackendError(
                f"OpenVINO cannot be imported ({error}); install the extra: `pip install hardroute[openvino]`"
            ) from None
        self._ov = openvino
        self._core = openvino.Core()
        known = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self._precision == "bf16" and "BF16" not in known:
            raise BackendError(
                f"backend {name!r} cannot run here: this processor has no bf16 arithmetic; choose 'openvino'"
            )

    def load(self, model: bytes, name: str) -> OpenVinoSession:
        """See `Backend.load`."""
        return self._session(self._read(model, name), name)

    def load_uint8(self, model: bytes, name: str) -> OpenVinoSession:
        """See `Uint8Backend.load_uint8`."""
        network = self._read(model, name)
        steps = self._ov.preprocess.PrePostProcessor(network)
        steps.input().tensor().set_element_type(self._ov.Type.u8)
        # Planes, not pixels: OpenVINO would first turn pixels into planes, and takes longer for it than OpenCV.
        steps.input().preprocess().convert_element_type(self._ov.Type.f32).scale(255.0)
        return self._session(steps.build(), name)

    def _read(self, model: bytes, name: str) -> Any:
        try:
            network = self._core.read_model(model, b"")
        except Exception as error:  # OpenVINO raises plain RuntimeError for everything
            raise BundleError(f"{name}: OpenVINO cannot load it ({brief(error)})") from None
        inputs = [(found.any_name, found.element_type) for found in network.inputs]
        if inputs != [(INPUT, self._ov.Type.f32)] or len(network.outputs) != 1:
            raise BundleError(f"{name} must take one float32 input {INPUT!r} and have one output")
        return network

    def _session(self, network: Any, name: str) -> OpenVinoSession:
        try:
            compiled = self._core.compile_model(network, "CPU", self._settings)
        except Exception as error:  # as above
            raise BundleError(f"{name}: OpenVINO cannot load it ({brief(error)})") from None
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != self._precision:
            raise BackendError(
                f"backend {self.name!r} cannot run here: OpenVINO would compute in {used}, not {self._precision}"
            )
        return OpenVinoSession(self._ov, compiled, name)


class OpenVinoSession:
    """One network in OpenVINO. See `Session`."""

    def __init__(self, ov: Any, compiled: Any, name: str) -> None:
        self._ov = ov
        self._compiled = compiled
        self._name = name
        # A request is one call's state and not safe to share. There are as many as there were calls at once.
        self._idle: deque[Any] = deque()

    def run(self, clips: np.ndarray) -> np.ndarray:
        """See `Session.run`."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            # The clips stay where they are. The logits are copied: the next call overwrites them.
            request.set_input_tensor(self._ov.Tensor(clips, shared_memory=True))
            request.infer()
            outputs = request.get_output_tensor().data.copy()
        except Exception as error:  # as above
            raise BackendError(f"{self._name}: OpenVINO failed ({brief(error)})") from None
        self._idle.append(request)
        return outputs
