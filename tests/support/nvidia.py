"""Stand-ins for `tensorrt` and `cuda.bindings.runtime`: an engine that is onnxruntime, memory that is the host's.

They record what was asked of them, and do a stream's work only when it is waited for. They show that our calls are
coherent, not that TensorRT accepts them.
"""

from __future__ import annotations

import ctypes
import enum
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest


class CudaError(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorNoDevice = 100


class FakeCuda(ModuleType):
    """`cuda.bindings.runtime`. Attributes: freed (addresses), uploads (bytes of each), devices."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")

    def __init__(self, devices: int = 1, name: bytes = b"Fake GPU") -> None:
        super().__init__("cuda.bindings.runtime")
        self.devices, self.name_of_device = devices, name
        self.memory: dict[int, Any] = {}
        self.freed: list[int] = []
        self.uploads: list[int] = []
        self.queues: dict[int, list[Callable[[], object]]] = {}

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        return (CudaError.cudaSuccess, self.devices) if self.devices else (CudaError.cudaErrorNoDevice, None)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, ...]:
        return CudaError.cudaSuccess, SimpleNamespace(name=self.name_of_device, major=9, minor=0)

    def cudaSetDevice(self, device: int) -> tuple[Any, ...]:
        return (CudaError.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return CudaError.cudaSuccess, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        self.freed.append(address)
        return (CudaError.cudaSuccess,)

    def cudaStreamCreate(self) -> tuple[Any, ...]:
        self.queues[len(self.queues) + 1] = []
        return CudaError.cudaSuccess, len(self.queues)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: str, stream: int) -> tuple[Any, ...]:
        device = to if kind == "up" else source
        assert size <= len(self.memory[device]), "more than was allocated"
        if kind == "up":
            self.uploads.append(size)
        self.queues[stream].append(lambda: ctypes.memmove(to, source, size))
        return (CudaError.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        for work in self.queues[stream]:
            work()
        self.queues[stream].clear()
        return (CudaError.cudaSuccess,)


class FakeTensorRt(ModuleType):
    """`tensorrt`. Its plans are the ONNX bytes. Attributes: built (a record of each build), loads (plans loaded)."""

    TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
    DataType = enum.Enum("DataType", "FLOAT HALF")
    MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")

    def __init__(self, cuda: FakeCuda, version: str = "10.16.1.11") -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.cuda = cuda
        self.built: list[dict[str, Any]] = []
        self.loads = 0
        self.refuse = ""
        flags = "TF32 FP16" if version.startswith("10.") else "TF32"
        self.BuilderFlag = enum.Enum("BuilderFlag", flags)  # type: ignore[misc]
        self.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})

    def Builder(self, logger: object) -> Any:
        record: dict[str, Any] = {"flags": {self.BuilderFlag["TF32"]}}

        def build(network: Any, config: Any) -> bytes:
            assert record["profile"] is config.profile
            record["timings"] = config.cache
            self.built.append(record)
            return network.model.SerializeToString()

        def profile() -> Any:
            made = SimpleNamespace()
            made.set_shape = lambda name, low, best, high: made.__dict__.update(name=name, shapes=(low, best, high))
            record["profile"] = made
            return made

        def config() -> Any:
            made = SimpleNamespace(profile=None, cache=None)
            made.set_memory_pool_limit = lambda pool, size: record.__setitem__("workspace", size)
            made.set_flag = lambda flag: record["flags"].add(flag)
            made.clear_flag = lambda flag: record["flags"].discard(flag)
            made.add_optimization_profile = lambda profile: setattr(made, "profile", profile)
            made.create_timing_cache = lambda data: data
            made.set_timing_cache = lambda data, ignore: setattr(made, "cache", data)
            made.get_timing_cache = lambda: SimpleNamespace(serialize=lambda: b"timings")
            return made

        return SimpleNamespace(
            create_network=lambda flags: SimpleNamespace(model=None),
            create_builder_config=config,
            create_optimization_profile=profile,
            build_serialized_network=build,
        )

    def OnnxParser(self, network: Any, logger: object) -> Any:
        def parse(data: bytes) -> bool:
            if self.refuse:
                return False
            network.model = onnx.load_from_string(data)
            tensors = network.model.graph
            network.get_input = lambda n: SimpleNamespace(
                name=tensors.input[n].name,
                shape=[d.dim_value or -1 for d in tensors.input[n].type.tensor_type.shape.dim],
            )
            network.get_output = lambda n: SimpleNamespace(name=tensors.output[n].name)
            return True

        return SimpleNamespace(parse=parse, num_errors=1, get_error=lambda n: self.refuse)

    def Runtime(self, logger: object) -> Any:
        return SimpleNamespace(deserialize_cuda_engine=self._load)

    def _load(self, plan: bytes) -> Any:
        self.loads += 1
        session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
        ports = {port.name: port for port in (*session.get_inputs(), *session.get_outputs())}
        names = list(ports)
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=names.__getitem__,
            get_tensor_mode=lambda name: self.TensorIOMode["INPUT" if name == names[0] else "OUTPUT"],
            get_tensor_dtype=lambda name: self.DataType["FLOAT"],
            get_tensor_shape=lambda name: [d if isinstance(d, int) else -1 for d in ports[name].shape],
            create_execution_context=lambda: Context(self.cuda, session, names),
        )


class Context:
    def __init__(self, cuda: FakeCuda, session: Any, names: list[str]) -> None:
        self.cuda, self.session, self.names = cuda, session, names
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return 1 <= shape[0] <= 32

    def execute_async_v3(self, stream: int) -> bool:
        shape = self.shape

        def work() -> None:
            given = ctypes.cast(self.addresses[self.names[0]], ctypes.POINTER(ctypes.c_float))
            clips = np.ctypeslib.as_array(given, shape)
            logits = self.session.run(None, {self.names[0]: clips})[0]
            ctypes.memmove(self.addresses[self.names[1]], logits.ctypes.data, logits.nbytes)

        self.cuda.queues[stream].append(work)
        return True


def install(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda, tensorrt: ModuleType | None = None) -> None:
    """Makes them importable; without `tensorrt` its import fails."""
    bindings = ModuleType("cuda.bindings")
    bindings.runtime = cuda  # type: ignore[attr-defined]
    for name, module in {"cuda": ModuleType("cuda"), "cuda.bindings": bindings, "cuda.bindings.runtime": cuda}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)
