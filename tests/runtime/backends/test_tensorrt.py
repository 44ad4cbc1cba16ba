"""Native TensorRT against stand-ins: what is asked of the builder, what is cached, and what is said when it cannot run.

No GPU is needed, so this says nothing about TensorRT itself; see docs/backends.md.
"""

from __future__ import annotations

import gc
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from hardroute import Engine
from hardroute.runtime.backends import TensorRt
from hardroute.runtime.errors import BackendError, BundleError
from tests.support.bundles import TinyBundle, make_bundle, random_frames
from tests.support.nvidia import FakeCuda, FakeTensorRt, install


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def trt(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeTensorRt:
    trt = FakeTensorRt(cuda)
    install(monkeypatch, cuda, trt)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return trt


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("trt") / "bundle")


@pytest.mark.parametrize("count", [1, 32, 70])
def test_answers_equal_the_closed_form_in_pieces_of_the_profile(
    tiny: TinyBundle, trt: FakeTensorRt, cuda: FakeCuda, count: int
) -> None:
    frames = random_frames(count, seed=count)
    with Engine.load(tiny.root, "trt") as engine:
        cuda.uploads.clear()
        predictions = engine.predict_batch(frames)
    assert [p.route.expert for p in predictions] == tiny.routes(frames).tolist()
    np.testing.assert_allclose([p.logits for p in predictions], tiny.logits(frames), atol=1e-5)
    clip = 4 * frames[0].size
    assert cuda.uploads[: (count + 31) // 32] == [clip * min(32, count - start) for start in range(0, count, 32)]


def test_what_is_asked_of_the_builder(tiny: TinyBundle, trt: FakeTensorRt) -> None:
    Engine.load(tiny.root, "trt")
    assert len(trt.built) == 4  # a router and three experts
    for build in trt.built:
        assert build["profile"].name == "clip"
        assert build["profile"].shapes == tuple((n, 3, 4, 8, 8) for n in (1, 8, 32))
        assert build["flags"] == set(), "neither TF32 nor fp16"
    assert [build["timings"] for build in trt.built] == [b"", b"timings", b"timings", b"timings"]


def test_the_router_stays_in_full_precision(tiny: TinyBundle, trt: FakeTensorRt) -> None:
    Engine.load(tiny.root, "trt-fp16")
    assert [{flag.name for flag in build["flags"]} for build in trt.built] == [set(), {"FP16"}, {"FP16"}, {"FP16"}]


def test_engines_are_built_once_for_one_machine_and_version(
    tiny: TinyBundle, trt: FakeTensorRt, cuda: FakeCuda, tmp_path: Path
) -> None:
    def builds(backend: str = "trt") -> int:
        before = len(trt.built)
        Engine.load(tiny.root, backend)
        return len(trt.built) - before

    assert (builds(), builds()) == (4, 0)
    trt.__version__ = "10.17.0"
    assert (builds(), builds()) == (4, 0)
    cuda.name_of_device = b"Another GPU"
    assert (builds(), builds()) == (4, 0)
    assert (builds("trt-fp16"), builds("trt-fp16")) == (4, 0)
    folder = tmp_path / "cache" / "hardroute" / "tensorrt-engines"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for damaged in folder.iterdir():
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    assert builds() == 4, "a damaged engine must never reach TensorRT"


def test_a_cache_that_others_can_write_is_refused(tiny: TinyBundle, trt: FakeTensorRt, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "hardroute" / "tensorrt-engines"
    folder.mkdir(parents=True)
    for mode in (0o777, 0o750, 0o701):
        folder.chmod(mode)
        with pytest.raises(BackendError, match="open to others; compiled code"):
            Engine.load(tiny.root, "trt")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(BackendError, match="is a link"):
        Engine.load(tiny.root, "trt")


def test_device_memory_is_given_back(tiny: TinyBundle, trt: FakeTensorRt, cuda: FakeCuda) -> None:
    with Engine.load(tiny.root, "trt") as engine:
        engine.predict_batch(random_frames(8))
        assert cuda.memory and not cuda.freed
    del engine
    gc.collect()
    assert sorted(cuda.freed) == sorted(cuda.memory)


def test_a_file_that_the_parser_refuses(tiny: TinyBundle, trt: FakeTensorRt) -> None:
    trt.refuse = "no importer for Relu"
    with pytest.raises(BundleError, match=r"router\.onnx: TensorRT cannot read it \(no importer for Relu\)"):
        Engine.load(tiny.root, "trt")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    needs = r"it needs an NVIDIA GPU and driver, and the extra `hardroute\[tensorrt\]`"

    def refusal(says: str, name: str = "trt") -> None:
        with pytest.raises(BackendError, match=f"'{name}' cannot run here: {says}.*{needs}"):
            TensorRt(name)

    install(monkeypatch, FakeCuda(), None)
    refusal("TensorRT cannot be imported")
    install(monkeypatch, FakeCuda(), FakeTensorRt(FakeCuda(), "9.3.0"))
    refusal(r"TensorRT 9\.3\.0 is installed")
    install(monkeypatch, FakeCuda(devices=0), FakeTensorRt(FakeCuda()))
    refusal("cudaGetDeviceCount: cudaErrorNoDevice")
    install(monkeypatch, FakeCuda(), FakeTensorRt(FakeCuda(), "11.4.0"))
    refusal(r"TensorRT 11\.4\.0 takes its precision from the ONNX file", "trt-fp16")
    TensorRt("trt")
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    refusal("cuda-bindings cannot be imported")
