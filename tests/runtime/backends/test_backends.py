"""Backends that run on any machine, against the closed form; and the choice between them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hardroute import Bundle, Engine
from hardroute.runtime.backends import BACKENDS, Backend, OpenVino, Session, open_backend
from hardroute.runtime.backends.ortgpu import BoundSession
from hardroute.runtime.clips import to_network, to_planes
from hardroute.runtime.errors import BackendError, BundleError
from hardroute.runtime.inference.backend_selection import fastest
from tests.support.bundles import TinyBundle, make_bundle, random_frames, replace_file

pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("backends") / "bundle")


class Bound:
    """onnxruntime as it is driven on a GPU, here with the CPU as its device."""

    def load(self, model: bytes, name: str) -> Session:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        return BoundSession(onnxruntime, session, session.get_outputs()[0].name, name, "cpu")


@pytest.fixture(params=["cpu", "openvino", "bound"])
def backend(request: pytest.FixtureRequest) -> Backend:
    return Bound() if request.param == "bound" else open_backend(request.param, threads=1)


def test_answers_equal_the_closed_form_at_any_batch_size(tiny: TinyBundle, backend: Backend) -> None:
    engine = Engine.load(tiny.root, backend)
    for count in (1, 7, 2, 33, 7):
        frames = random_frames(count, seed=count)
        found = engine.predict_batch(frames)
        assert [p.route.expert for p in found] == tiny.routes(frames).tolist()
        np.testing.assert_allclose([p.logits for p in found], tiny.logits(frames), atol=1e-5)


def test_an_answer_stays_when_the_next_clip_comes(tiny: TinyBundle, backend: Backend) -> None:
    session = backend.load((tiny.root / "router.onnx").read_bytes(), "router.onnx")
    clips = np.random.default_rng(0).random((2, 1, 3, 4, 8, 8), np.float32)
    first = session.run(clips[0])
    kept = first.copy()
    session.run(clips[1])
    np.testing.assert_array_equal(first, kept)


def test_threads_do_not_disturb_each_other(tiny: TinyBundle, backend: Backend) -> None:
    engine = Engine.load(tiny.root, backend)
    batches = [random_frames(1 + n % 5, seed=n) for n in range(40)]
    together = threading.Barrier(4)

    def worker(mine: list[np.ndarray]) -> list[np.ndarray]:
        together.wait()
        return [np.stack([p.logits for p in engine.predict_batch(frames)]) for frames in mine]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(worker, [batches[n::4] for n in range(4)]))
    for n, frames in enumerate(batches):
        np.testing.assert_allclose(answers[n % 4][n // 4], tiny.logits(frames), atol=1e-5)


def test_clips_of_another_size_are_an_error_not_a_crash(tiny: TinyBundle, backend: Backend) -> None:
    session = backend.load((tiny.root / "router.onnx").read_bytes(), "router.onnx")
    for _ in range(2):
        with pytest.raises(BackendError, match=r"router\.onnx: (onnxruntime|OpenVINO) failed"):
            session.run(np.zeros((1, 3, 4, 8, 16), np.float32))
        assert session.run(np.zeros((1, 3, 4, 8, 8), np.float32)).shape == (1, 3)


@pytest.mark.parametrize("load", [OpenVino.load, OpenVino.load_uint8])
def test_openvino_takes_models_of_our_form_only(tiny: TinyBundle, load: Callable[..., Session]) -> None:
    import onnx

    model = onnx.load_from_string((tiny.root / "router.onnx").read_bytes())
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    with pytest.raises(BundleError, match=r"r\.onnx must take one float32 input 'clip'"):
        load(OpenVino("openvino"), model.SerializeToString(), "r.onnx")
    with pytest.raises(BundleError, match=r"r\.onnx: OpenVINO cannot load it"):
        load(OpenVino("openvino"), b"no model", "r.onnx")


def test_bytes_and_floats_get_the_same_answers(tiny: TinyBundle) -> None:
    backend, model = OpenVino("openvino", threads=1), (tiny.root / "expert_1.onnx").read_bytes()
    floats, uint8 = backend.load(model, "e.onnx"), backend.load_uint8(model, "e.onnx")
    for count in (1, 5, 2):
        frames = random_frames(count, seed=count)
        np.testing.assert_allclose(uint8.run(to_planes(frames)), floats.run(to_network(frames)), atol=1e-5)
    # Neither takes the other's clips for its own: a float read as four bytes would be an answer to noise.
    for session, wrong in ((uint8, to_network(frames)), (floats, to_planes(frames))):
        with pytest.raises(BackendError, match=r"e\.onnx: OpenVINO failed"):
            session.run(wrong)


@pytest.mark.parametrize("name, dtype", [("openvino", np.uint8), ("cpu", np.float32)])
def test_an_engine_hands_over_bytes_where_the_backend_takes_them(
    tiny: TinyBundle, name: str, dtype: type[np.generic], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny.root, name, threads=1)
    assert engine._networks
    seen, session = set(), type(engine._networks._router)
    run = session.run

    def watched(self: Session, clips: np.ndarray) -> np.ndarray:
        seen.add(clips.dtype)
        return run(self, clips)

    monkeypatch.setattr(session, "run", watched)
    frames = random_frames(9, seed=2)
    engine.replay_probes()
    np.testing.assert_allclose([p.logits for p in engine.predict_batch(frames)], tiny.logits(frames), atol=1e-5)
    scores = np.stack([route.logits for route in engine.route(frames)])
    np.testing.assert_allclose(scores, tiny.router(frames), atol=1e-5)
    assert seen == {np.dtype(dtype)}


def test_openvino_computes_in_the_precision_that_was_asked_for(tiny: TinyBundle) -> None:
    import openvino

    backend = OpenVino("openvino")
    session = backend.load((tiny.root / "router.onnx").read_bytes(), "router.onnx")
    assert session._compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    backend._precision = "f16"  # what a CPU that has no fp16 arithmetic would be asked for
    with pytest.raises(BackendError, match="would compute in f32, not f16"):
        backend.load((tiny.root / "router.onnx").read_bytes(), "router.onnx")


def test_without_openvino_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"pip install hardroute\[openvino\]"):
        OpenVino("openvino")


class Slow:
    """The CPU backend, with an answer that is late and, if asked for, wrong by `offset`."""

    def __init__(self, pause: threading.Event, seconds: float, offset: float, threads: int | None) -> None:
        self.pause, self.seconds, self.offset = pause, seconds, offset
        self.library = open_backend("cpu", threads)

    def load(self, model: bytes, name: str) -> Session:
        session, slow = self.library.load(model, name), self

        class Late:
            def run(self, clips: np.ndarray) -> np.ndarray:
                slow.pause.wait(slow.seconds)
                return session.run(clips) + np.float32(slow.offset)

        return Late()


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(threads: int | None) -> Backend:
        raise BackendError("backend 'absent' cannot run here: no device; it needs one")

    never = threading.Event()
    rows = {
        "absent": absent,
        "slow": partial(Slow, never, 0.03, 0.0),
        "quick": partial(Slow, never, 0.0, 0.0),
        "wrong": partial(Slow, never, 0.0, 0.01),
    }
    for name, row in rows.items():
        monkeypatch.setitem(BACKENDS, name, row)


@pytest.mark.usefixtures("rivals")
@pytest.mark.parametrize("order", [("absent", "slow", "wrong", "quick"), ("quick", "wrong", "slow", "absent")])
def test_auto_takes_the_fastest_that_answers_the_probes(tiny: TinyBundle, order: tuple[str, ...]) -> None:
    name, networks, because = fastest(Bundle.open(tiny.root), 1, order)
    assert name == "quick"
    assert networks.predict(random_frames(1))[0].label
    assert because.startswith("backend quick is the fastest per clip (quick ")
    assert ", slow " in because and "absent: no device" in because and "it needs" not in because
    assert "wrong: " in because and "probe 0: a router logit differs by 0.01" in because
    name, _, because = fastest(Bundle.open(tiny.root), 1, order, tolerance=0.1)
    assert "wrong " in because.split("left out")[0]


@pytest.mark.usefixtures("rivals")
def test_auto_with_nothing_to_choose_from(tiny: TinyBundle, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no backend can serve this bundle here: absent: backend 'absent'"):
        fastest(Bundle.open(tiny.root), 1, ("absent",))
    with pytest.raises(BundleError, match=r"wrong: .*probe 0"):
        fastest(Bundle.open(tiny.root), 1, ("absent", "wrong"))
    broken = make_bundle(tmp_path / "bundle")
    replace_file(broken.root, "expert_0.onnx", b"\x3a\x00" + b"x")
    with pytest.raises(BundleError, match=r"^expert_0\.onnx is not a readable ONNX file"):
        fastest(Bundle.open(broken.root), 1, ("absent", "quick"))


def test_an_engine_says_which_backend_answers_and_why(tiny: TinyBundle) -> None:
    engine = Engine.load(tiny.root, "auto", threads=1)
    assert engine.backend in ("openvino", "cpu")
    assert f"backend {engine.backend} is the fastest" in engine.chosen_because
    assert "trt: " in engine.chosen_because and "cuda: " in engine.chosen_because
    assert Engine.load(tiny.root, "openvino").chosen_because == "backend openvino was asked for"


def test_a_lower_precision_needs_leave(tmp_path: Path) -> None:
    if "BF16" not in OpenVino("openvino")._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BackendError, match="no bf16"):
            OpenVino("openvino-bf16")
        pytest.skip("this processor has no bf16")
    tiny = make_bundle(tmp_path / "bundle", tolerance=1e-5)
    with pytest.raises(BundleError, match="probe 0: a router logit differs by"):
        Engine.load(tiny.root, "openvino-bf16")
    engine = Engine.load(tiny.root, "openvino-bf16", tolerance=0.2)
    frames = random_frames(8, seed=1)
    gap = np.abs(np.stack([p.logits for p in engine.predict_batch(frames)]) - tiny.logits(frames)).max()
    assert 1e-5 < gap < 0.2
