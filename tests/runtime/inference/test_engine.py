"""The engine against the closed form of linear networks."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from hardroute import Bundle, Engine, Prediction, Route, decode
from hardroute.runtime.backends import OnnxRuntime, Session
from hardroute.runtime.bundle import Probes
from hardroute.runtime.errors import BackendError, BundleError, ClipError, EngineError
from hardroute.runtime.inference import Timing
from hardroute.runtime.prediction import softmax
from tests.support.bundles import (
    CLASSES,
    TinyBundle,
    digest_of,
    make_bundle,
    random_frames,
    replace_file,
    write_video,
)
from tests.support.forks import in_child


class CountingBackend:
    """onnxruntime that keeps count: for each network, how many clips each of its runs had."""

    def __init__(self) -> None:
        self.runs: dict[str, list[int]] = {}
        self._library = OnnxRuntime("cpu", threads=1)

    def load(self, model: bytes, name: str) -> Session:
        session = self._library.load(model, name)
        runs = self.runs.setdefault(name, [])

        class Counting:
            def run(self, clips: np.ndarray) -> np.ndarray:
                runs.append(len(clips))
                return session.run(clips)

        return Counting()


class FakeBackend:
    """Answers for every network what it is told to."""

    def __init__(self, answer: np.ndarray) -> None:
        self.answer = answer

    def load(self, model: bytes, name: str) -> Session:
        return self

    def run(self, clips: np.ndarray) -> np.ndarray:
        return self.answer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBundle:
    return make_bundle(tmp_path_factory.mktemp("engine") / "bundle")


@pytest.fixture(scope="module")
def engine(tiny: TinyBundle) -> Engine:
    return Engine.load(tiny.root, threads=1)


@pytest.mark.parametrize("count", [1, 5, 16])
def test_answers_equal_the_closed_form(tiny: TinyBundle, engine: Engine, count: int) -> None:
    frames = random_frames(count, seed=7)
    predictions = engine.predict_batch(frames)
    routes, logits, router = tiny.routes(frames), tiny.logits(frames), tiny.router(frames)
    if count > 1:
        assert len(set(routes)) > 1, "the clips must take different routes for this test to mean anything"
    assert [p.route.expert for p in predictions] == routes.tolist()
    np.testing.assert_allclose([p.logits for p in predictions], logits, atol=1e-5)
    np.testing.assert_allclose([p.route.logits for p in predictions], router, atol=1e-5)
    weights = np.exp(router) / np.exp(router).sum(1, keepdims=True)
    np.testing.assert_allclose([p.route.weights for p in predictions], weights, atol=1e-6)
    ranked = np.sort(weights, axis=1)
    np.testing.assert_allclose([p.route.margin for p in predictions], ranked[:, -1] - ranked[:, -2], atol=1e-6)
    for prediction, clip_logits in zip(predictions, logits, strict=True):
        assert prediction.index == clip_logits.argmax()
        assert prediction.label == CLASSES[prediction.index]
        assert prediction.probability == prediction.probabilities[prediction.index]
        assert prediction.probabilities.sum() == pytest.approx(1, abs=1e-6)


def test_the_batch_a_clip_comes_in_does_not_matter(engine: Engine) -> None:
    frames = random_frames(16, seed=3)
    alone = [engine.predict_batch(frames[n : n + 1])[0] for n in range(16)]
    for batch in (engine.predict_batch(frames), engine.predict_batch(frames[::-1])[::-1]):
        assert [p.route.expert for p in batch] == [p.route.expert for p in alone]
        assert [p.label for p in batch] == [p.label for p in alone]
        np.testing.assert_allclose([p.logits for p in batch], [p.logits for p in alone], atol=1e-6)


def test_only_chosen_experts_run_and_each_once(tiny: TinyBundle) -> None:
    backend = CountingBackend()
    engine = Engine.load(tiny.root, backend, verify=False)
    frames = random_frames(16, seed=5)
    load = np.bincount(tiny.routes(frames), minlength=3)
    assert (load > 0).all()
    engine.predict_batch(frames)
    expected = {f"expert_{n}.onnx": [int(load[n])] for n in range(3)}
    assert backend.runs == {"router.onnx": [16], **expected}

    for name in backend.runs:
        backend.runs[name].clear()
    engine.predict_batch(frames[:1])
    chosen = f"expert_{tiny.routes(frames[:1])[0]}.onnx"
    assert {name: runs for name, runs in backend.runs.items() if runs} == {"router.onnx": [1], chosen: [1]}


def test_a_video_is_decoded_named_and_timed(engine: Engine, tmp_path: Path) -> None:
    video = write_video(tmp_path / "square.mp4")
    prediction = engine.predict(str(video))
    assert prediction.clip == "square.mp4"
    assert prediction.clip_sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    timing = prediction.milliseconds
    assert timing.decode > 0 and timing.route > 0 and timing.expert > 0
    clip = decode(video, engine.contract)
    again = engine.predict(clip)
    np.testing.assert_array_equal(again.logits, prediction.logits)
    assert (again.clip, again.clip_sha256, again.milliseconds.decode) == (clip.name, clip.sha256, 0)
    np.testing.assert_array_equal(engine.predict_batch(clip.frames[None])[0].logits, prediction.logits)


def test_no_clips_no_predictions(engine: Engine) -> None:
    assert engine.predict_batch(random_frames(0)) == []


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        (random_frames(2).astype(np.float32), "float32, expected uint8"),
        (np.full((1, 4, 8, 8, 3), np.nan), "float64, expected uint8"),
        (random_frames(2)[0], r"shape \(4, 8, 8, 3\), this bundle takes \(N, 4, 8, 8, 3\)"),
        (random_frames(2)[:, :3], r"takes \(N, 4, 8, 8, 3\)"),
        (random_frames(2).transpose(0, 4, 1, 2, 3), r"takes \(N, 4, 8, 8, 3\)"),
    ],
)
def test_frames_that_the_contract_does_not_allow(engine: Engine, frames: np.ndarray, says: str) -> None:
    with pytest.raises(ClipError, match=says):
        engine.predict_batch(frames)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (np.full((1, 3), np.nan, np.float32), "not finite"),
        (np.array([[0, np.inf, 0]], np.float32), "not finite"),
        (np.array([[-np.inf, 0, np.inf]], np.float32), "not finite"),
        (np.zeros((1, 4), np.float32), r"router\.onnx answered float32 \(1, 4\), expected float32 \(1, 3\)"),
        (np.zeros((1, 3), np.float16), "answered float16"),
    ],
)
def test_an_answer_that_cannot_be_right_is_not_passed_on(tiny: TinyBundle, answer: np.ndarray, says: str) -> None:
    engine = Engine.load(tiny.root, FakeBackend(answer), verify=False)
    with pytest.raises(BundleError, match=says):
        engine.predict_batch(random_frames(1))


def test_an_answer_of_huge_numbers_is_finite(tiny: TinyBundle) -> None:
    huge = np.full((1, 3), np.finfo(np.float32).max, np.float32)
    prediction = Engine.load(tiny.root, FakeBackend(huge), verify=False).predict_batch(random_frames(1))[0]
    assert prediction.probability == pytest.approx(1 / 3)


def spoil_probes(tiny: TinyBundle, clip: int, **changes: np.ndarray) -> None:
    """Replaces the expectations for one clip, and seals the bundle again."""
    probes = Bundle.open(tiny.root).probes()
    for name, value in changes.items():
        getattr(probes, name)[clip] = value
    probes.save(tiny.root.parent / "spoilt.npz")
    replace_file(tiny.root, "probes.npz", (tiny.root.parent / "spoilt.npz").read_bytes())


def test_a_probe_that_takes_another_route_is_named(tmp_path: Path) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    probes = Bundle.open(tiny.root).probes()
    right, wrong = probes.routes[2], (probes.routes[2] + 1) % 3
    spoil_probes(tiny, 2, routes=wrong)
    with pytest.raises(BundleError, match=f"probe 2: expert {right} was chosen instead of expert {wrong}"):
        Engine.load(tiny.root)
    assert Engine.load(tiny.root, verify=False).classes == CLASSES


@pytest.mark.parametrize(("field", "says"), [("logits", "a logit of expert"), ("router_logits", "a router logit")])
def test_a_probe_that_answers_otherwise_is_named(tmp_path: Path, field: str, says: str) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    exact = getattr(Bundle.open(tiny.root).probes(), field)[5].copy()
    spoil_probes(tiny, 5, **{field: exact + np.array([0, 5e-4, 0], np.float32)})
    Engine.load(tiny.root)  # within the tolerance of 1e-3
    for gap in (0.25, -0.25):
        spoil_probes(tiny, 5, **{field: exact + np.array([0, gap, 0], np.float32)})
        with pytest.raises(BundleError, match=f"probe 5: {says}.* differs by 0.25, more than the tolerance 0.001"):
            Engine.load(tiny.root)


@pytest.mark.parametrize("tolerance", [float("nan"), -1e-3, float("inf")])
def test_a_tolerance_that_would_let_anything_pass_is_refused(tiny: TinyBundle, tolerance: float) -> None:
    with pytest.raises(EngineError, match="must be a number from 0"):
        Engine.load(tiny.root, tolerance=tolerance)


def test_an_engine_keeps_the_tolerance_that_it_was_loaded_with(tmp_path: Path) -> None:
    class Noisy(OnnxRuntime):
        """Off by half of a logit, as an arithmetic of few bits is."""

        def load(self, model: bytes, name: str) -> Session:
            session = super().load(model, name)
            run = session.run
            session.run = lambda clips: run(clips) + np.float32(0.5 * (name != "router.onnx"))  # type: ignore[method-assign]
            return session

    tiny = make_bundle(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"more than the tolerance 0\.001"):
        Engine.load(tiny.root, Noisy("cpu"))
    with Engine.load(tiny.root, Noisy("cpu"), tolerance=0.6) as engine:
        engine.replay_probes()
    with Engine.load(tiny.root, Noisy("cpu"), verify=False) as engine, pytest.raises(BundleError, match="tolerance"):
        engine.replay_probes()


def test_a_tolerance_of_zero_is_not_the_bundles_own(tmp_path: Path) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    exact = Bundle.open(tiny.root).probes().logits[5].copy()
    spoil_probes(tiny, 5, logits=exact + np.array([0, 5e-4, 0], np.float32))
    with pytest.raises(BundleError, match="more than the tolerance 0"):
        Engine.load(tiny.root, tolerance=0)


@pytest.mark.parametrize("expert", [-1, 3])
def test_an_expert_that_is_not_there(engine: Engine, expert: int) -> None:
    with pytest.raises(EngineError, match=f"no expert {expert}; this bundle has 0 to 2"):
        engine.answer(expert, random_frames(1))


def test_frames_that_are_no_array(engine: Engine) -> None:
    with pytest.raises(ClipError, match="a list, expected a numpy array"):
        engine.predict_batch([[0]])  # type: ignore[arg-type]


def test_experts_in_swapped_files_are_caught_by_the_probes(tmp_path: Path) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    first, second = ((tiny.root / f"expert_{n}.onnx").read_bytes() for n in (0, 1))
    replace_file(tiny.root, "expert_0.onnx", second)
    replace_file(tiny.root, "expert_1.onnx", first)
    with pytest.raises(BundleError, match="a logit of expert"):
        Engine.load(tiny.root)


def test_what_is_loaded_is_what_was_verified(tiny: TinyBundle, tmp_path: Path) -> None:
    other = make_bundle(tmp_path / "bundle")
    bundle = Bundle.open(other.root)
    (other.root / "expert_0.onnx").write_bytes((other.root / "expert_1.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"expert_0\.onnx was changed"):
        Engine.load(bundle)


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_here_is_an_error_and_no_fallback(tiny: TinyBundle, name: str) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the GPU providers; see the GPU tests")
    with pytest.raises(BackendError, match=f"'{name}' cannot run.*onnxruntime-gpu.*CUDA 13.*cuDNN 9") as caught:
        Engine.load(tiny.root, name)
    assert ("TensorRT 10" in str(caught.value)) == (name == "tensorrt")


def test_a_provider_that_the_session_dropped_is_an_error(tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # The GPU build lists providers whose libraries are missing; the session drops them with a log line.
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr("hardroute.runtime.backends.ort._loads", lambda library: True)
    with pytest.warns(UserWarning, match="CUDA"), pytest.raises(BackendError, match="do not load here"):
        Engine.load(tiny.root, "cuda")


def test_a_missing_library_is_named(tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr("hardroute.runtime.backends.ort._loads", lambda library: "nvinfer" not in library)
    with pytest.raises(BackendError, match=r"'tensorrt' cannot run here: libnvinfer\.so\.10 cannot be loaded"):
        Engine.load(tiny.root, "tensorrt")


def test_each_network_has_its_own_engine_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hardroute.runtime.backends.ort import PROVIDERS

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _, options = PROVIDERS["tensorrt"].chain[0]
    networks = (("expert_0.onnx", b"a"), ("expert_1.onnx", b"a"), ("expert_0.onnx", b"b"))
    assert len({options(*network)["trt_engine_cache_prefix"] for network in networks}) == 3
    assert Path(options("x", b"")["trt_engine_cache_path"]).is_relative_to(tmp_path)


def test_unknown_backends_and_thread_counts(tiny: TinyBundle) -> None:
    with pytest.raises(BackendError, match="unknown backend 'tpu'; known: auto, cpu, cuda, tensorrt, openvino"):
        Engine.load(tiny.root, "tpu")
    with pytest.raises(BackendError, match="at least 1, got 0"):
        Engine.load(tiny.root, threads=0)


def test_without_onnxruntime_the_extra_is_named(tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"pip install hardroute\[cpu\]"):
        Engine.load(tiny.root)


def test_a_model_of_another_form_is_refused(tmp_path: Path) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    model = onnx.load_from_string((tiny.root / "expert_0.onnx").read_bytes())
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    replace_file(tiny.root, "expert_0.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match=r"expert_0\.onnx must take one float32 input 'clip'"):
        Engine.load(tiny.root)
    model.graph.node[0].op_type = "Slice"  # with a Flatten's inputs
    replace_file(tiny.root, "expert_0.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match=r"expert_0\.onnx: onnxruntime cannot load it"):
        Engine.load(tiny.root)


def test_a_model_for_clips_of_another_size_is_an_error_not_a_crash(tmp_path: Path, tiny: TinyBundle) -> None:
    from hardroute import ClipContract

    larger = make_bundle(tmp_path / "larger", contract=ClipContract(frames=4, height=16, width=16))
    replace_file(larger.root, "router.onnx", (tiny.root / "router.onnx").read_bytes())
    with pytest.raises(BackendError, match=r"router\.onnx: onnxruntime failed"):
        Engine.load(larger.root)


def test_a_closed_engine_says_so(tiny: TinyBundle) -> None:
    with Engine.load(tiny.root) as engine:
        assert engine.bundle.digest == digest_of(tiny.root)
        engine.predict_batch(random_frames(1))
    with pytest.raises(RuntimeError, match="closed"):
        engine.predict_batch(random_frames(1))
    engine.close()


def test_route_and_answer_are_the_halves_of_a_prediction(tiny: TinyBundle, engine: Engine) -> None:
    frames = random_frames(9, seed=4)
    routes = engine.route(frames)
    assert [route.expert for route in routes] == tiny.routes(frames).tolist()
    logits = np.stack([engine.answer(route.expert, frames[n : n + 1])[0] for n, route in enumerate(routes)])
    halves = Prediction.batch(engine.classes, routes, logits, [Timing(0, 1, 2)] * 9)
    for half, whole in zip(halves, engine.predict_batch(frames), strict=True):
        assert (half.label, half.route.expert) == (whole.label, whole.route.expert)
        np.testing.assert_allclose(half.probabilities, whole.probabilities, atol=1e-6)
        assert half.milliseconds == Timing(0, 1, 2)
    for call in (engine.route, partial(engine.answer, 0)):
        with pytest.raises(ClipError, match="expected uint8"):
            call(frames.astype(np.float32))


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_batches_too_large_to_keep_memory_for(tiny: TinyBundle, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    engine, frames = Engine.load(tiny.root, backend, threads=1), random_frames(12, seed=8)
    kept = [engine.predict_batch(frames[:count]) for count in (12, 5, 12)][-1]
    monkeypatch.setattr("hardroute.runtime.inference.networks._SCRATCH_BYTES", 0)
    fresh = engine.predict_batch(frames)
    for a, b in zip(kept, fresh, strict=True):
        np.testing.assert_array_equal(a.logits, b.logits)


def test_a_forked_child_is_told_to_load_for_itself(tiny: TinyBundle) -> None:
    engine = Engine.load(tiny.root, threads=1)
    assert in_child(lambda: engine.predict_batch(random_frames(1))) == (
        "EngineError: the engine was loaded before a fork and cannot work in the child; load it there"
    )
    assert engine.predict_batch(random_frames(1))


def test_margins_and_softmax_at_the_edges() -> None:
    assert Route.from_logits(np.array([4], np.float32)).margin == 1
    assert Route.from_logits(np.array([2, 2], np.float32)).margin == 0
    assert Route.from_logits(np.array([0, 9, 0], np.float32)).margin == pytest.approx(np.expm1(9) / (np.exp(9) + 2))
    assert Route.from_logits(np.array([2, 2], np.float32)).expert == 0
    np.testing.assert_array_equal(softmax(np.array([[3e38, -3e38]], np.float32)), [[1, 0]])


def test_probes_of_no_difference() -> None:
    empty = Probes(*(np.zeros(0) for _ in range(4)))
    assert empty.first_difference([], 1e-3) is None


def test_import_runtime_loads_no_torch_and_no_inference_library() -> None:
    code = "import hardroute.runtime, sys; print(*{'torch', 'onnxruntime', 'typer', 'onnx'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_serving_loads_no_torch(tiny: TinyBundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    code = (
        "import sys; from hardroute import Engine; "
        f"print(Engine.load({str(tiny.root)!r}).predict({str(video)!r}).label, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] in CLASSES and done.stdout.split()[1] == "False"
