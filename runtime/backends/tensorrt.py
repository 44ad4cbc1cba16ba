"""NVIDIA TensorRT itself: one engine per network, for batches of 1 to 32, built once per machine.

Written against the API of TensorRT 10 and 11 (https://docs.nvidia.com/deeplearning/tensorrt). See docs/backends.md for
where it has run.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Any, Final

import numpy as np

from hardroute.runtime.backends import cache
from hardroute.runtime.backends.base import INPUT, brief
from hardroute.runtime.backends.cuda import Cuda
from hardroute.runtime.errors import BackendError, BundleError

PRECISIONS: Final = {"trt": "fp32", "trt-fp16": "fp16"}
BATCHES: Final = (1, 8, 32)  # smallest, the one to tune for, largest; a larger batch runs in pieces
WORKSPACE_BYTES: Final = 2 * 2**30
_ROUTER_OUTPUT: Final = "router_logits"
_MAJORS: Final = (10, 11)
_NEEDS: Final = "an NVIDIA GPU and driver, and the extra `hardroute[tensorrt]` (TensorRT 10 and cuda-bindings)"


class TensorRt:
    """TensorRT on the first GPU.

    "fp32" is without TF32. "fp16" lets TensorRT choose fp16 for the experts; the router stays in fp32, because a
    rounded router sends clips elsewhere.

    Args:
        name: a key of `PRECISIONS`.
        threads: without effect.

    Raises:
        BackendError: what exactly is missing here.
    """

    def __init__(self, name: str, threads: int | None = None) -> None:
        self.name = name
        self._fp16 = PRECISIONS[name] == "fp16"
        try:
            import tensorrt  # there only with the extra
        except ImportError as error:
            raise self._unavailable(f"TensorRT cannot be imported ({brief(error)})") from None
        self._trt = tensorrt
        version = tensorrt.__version__
        if int(version.split(".")[0]) not in _MAJORS:
            raise self._unavailable(f"TensorRT {version} is installed")
        if self._fp16 and not hasattr(tensorrt.BuilderFlag, "FP16"):
            raise self._unavailable(f"TensorRT {version} takes its precision from the ONNX file and has no fp16 switch")
        try:
            self._cuda = Cuda()
        except BackendError as error:
            raise self._unavailable(str(error)) from None
        self._platform = (self._cuda.device, version)
        self._logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self._folder = cache.cache_folder("tensorrt-engines")

    def load(self, model: bytes, name: str) -> TensorRtSession:
        """See `Backend.load`. Builds the engine, which takes up to minutes, unless this machine did so before."""
        self._cuda.use()
        digest = hashlib.sha256(model).hexdigest()
        path = self._folder / cache.key(*self._platform, digest, PRECISIONS[self.name], str(BATCHES))
        runtime = self._trt.Runtime(self._logger)
        plan = cache.read(path)
        engine = runtime.deserialize_cuda_engine(plan) if plan else None
        if engine is None:  # not there, or not to TensorRT's liking
            plan = self._build(model, name)
            engine = runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise BackendError(f"{name}: TensorRT cannot load the engine that it has just built")
            cache.write(path, plan)
        return TensorRtSession(self._trt, self._cuda, engine, name)

    def _build(self, model: bytes, name: str) -> bytes:
        trt = self._trt
        builder = trt.Builder(self._logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(model):
            reasons = "; ".join(str(parser.get_error(n)) for n in range(parser.num_errors))
            raise BundleError(f"{name}: TensorRT cannot read it ({brief(reasons)})")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and it keeps 10 bits of a factor
        if self._fp16 and network.get_output(0).name != _ROUTER_OUTPUT:
            config.set_flag(trt.BuilderFlag.FP16)
        clip = tuple(network.get_input(0).shape)[1:]
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, *((batch, *clip) for batch in BATCHES))
        config.add_optimization_profile(profile)
        # Kernels that were timed for one network need not be timed again for the next: experts are alike.
        timings = self._folder / f"timing-{cache.key(*self._platform)}"
        config.set_timing_cache(config.create_timing_cache(cache.read(timings) or b""), False)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise BackendError(f"{name}: TensorRT cannot build an engine (its reasons stand above)")
        cache.write(timings, bytes(memoryview(config.get_timing_cache().serialize())))
        return bytes(memoryview(plan))

    def _unavailable(self, reason: str) -> BackendError:
        return BackendError(
            f"backend {self.name!r} cannot run here: {reason}; it needs {_NEEDS}; or choose another backend"
        )


class _Lane:
    """What one call at a time needs: an execution context, a stream, and memory for the largest batch."""

    def __init__(self, cuda: Cuda, engine: Any, clip: tuple[int, ...], output: str, width: int) -> None:
        self.context = engine.create_execution_context()
        self.stream = cuda.stream(self)
        self.clips = cuda.allocate(self, 4 * BATCHES[-1] * int(np.prod(clip)))
        self.logits = cuda.allocate(self, 4 * BATCHES[-1] * width)
        self.context.set_tensor_address(INPUT, self.clips)
        self.context.set_tensor_address(output, self.logits)


class TensorRtSession:
    """One network in TensorRT. See `Session`."""

    def __init__(self, trt: Any, cuda: Cuda, engine: Any, name: str) -> None:
        names = [engine.get_tensor_name(n) for n in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        floats = all(engine.get_tensor_dtype(n) == trt.DataType.FLOAT for n in names)
        if inputs != [INPUT] or len(outputs) != 1 or not floats:
            raise BundleError(f"{name} must take one float32 input {INPUT!r} and have one float32 output")
        self._cuda, self._engine, self._name = cuda, engine, name
        self._output = outputs[0]
        self._clip = tuple(engine.get_tensor_shape(INPUT))[1:]
        self._width = int(engine.get_tensor_shape(self._output)[1])
        self._idle: deque[_Lane] = deque()  # as many as there were calls at once

    def run(self, clips: np.ndarray) -> np.ndarray:
        """See `Session.run`."""
        if clips.shape[1:] != self._clip:
            raise BackendError(f"{self._name}: TensorRT failed (clips are {clips.shape[1:]}, it takes {self._clip})")
        self._cuda.use()
        try:
            lane = self._idle.pop()
        except IndexError:
            lane = _Lane(self._cuda, self._engine, self._clip, self._output, self._width)
        logits = np.empty((len(clips), self._width), np.float32)
        for start in range(0, len(clips), BATCHES[-1]):
            piece = slice(start, start + BATCHES[-1])
            self._run(lane, clips[piece], logits[piece])
        self._idle.append(lane)
        return logits

    def _run(self, lane: _Lane, clips: np.ndarray, logits: np.ndarray) -> None:
        self._cuda.upload(clips, lane.clips, lane.stream)
        if not lane.context.set_input_shape(INPUT, clips.shape) or not lane.context.execute_async_v3(lane.stream):
            self._cuda.wait(lane.stream)  # the upload still reads the clips
            raise BackendError(f"{self._name}: TensorRT failed on {len(clips)} clips (its reasons stand above)")
        self._cuda.download(lane.logits, logits, lane.stream)
        self._cuda.wait(lane.stream)
