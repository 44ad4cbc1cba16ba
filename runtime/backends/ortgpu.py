"""onnxruntime with inputs and outputs bound on the device: clips go up once into memory that stays, logits come down.

https://onnxruntime.ai/docs/performance/tune-performance/iobinding.html
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from hardroute.runtime.backends.base import INPUT, brief
from hardroute.runtime.errors import BackendError


class _Lane:
    """What one call at a time needs: a binding, and memory on the device for a batch of one size."""

    def __init__(self, ort: Any, session: Any, output: str, device: str, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.clips = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float32, device, 0)
        self.binding = session.io_binding()
        self.binding.bind_ortvalue_input(INPUT, self.clips)
        self.binding.bind_output(output, device, 0)


class BoundSession:
    """One network in onnxruntime on a device. See `Session`.

    Args:
        ort: the module.
        session: an InferenceSession.
        output: the name of its one output.
        name: the file, for messages.
        device: "cuda"; "cpu" works as well and gains nothing.
    """

    def __init__(self, ort: Any, session: Any, output: str, name: str, device: str = "cuda") -> None:
        self._ort, self._session, self._output, self._name, self._device = ort, session, output, name, device
        self._idle: deque[_Lane] = deque()  # as many as there were calls at once

    def run(self, clips: np.ndarray) -> np.ndarray:
        """See `Session.run`."""
        try:
            lane = self._idle.pop()
        except IndexError:
            lane = None
        try:
            if lane is None or lane.shape != clips.shape:
                lane = None  # its memory goes before the next is taken
                lane = _Lane(self._ort, self._session, self._output, self._device, clips.shape)
            lane.clips.update_inplace(clips)
            self._session.run_with_iobinding(lane.binding)
            outputs = lane.binding.copy_outputs_to_cpu()[0]
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise BackendError(f"{self._name}: onnxruntime failed ({brief(error)})") from None
        self._idle.append(lane)
        return outputs
