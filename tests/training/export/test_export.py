"""A run becomes a bundle: twin, split files and the composed file say the same, and only chosen experts run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from hardroute import Engine
from hardroute.audit.evaluation.subject import spread
from hardroute.models import EXPERTS, VideoMoE, build_expert, build_model, load_twin
from hardroute.models.restoration import OverUnder, Restored
from hardroute.runtime.clips import to_network
from hardroute.runtime.datasets import ClipArrays
from hardroute.runtime.errors import DataError
from hardroute.training.export.bundle import readable, write_bundle
from hardroute.training.export.onnx_files import export_network
from hardroute.training.run import RunRecord
from hardroute.training.settings import FitSettings
from tests.support.paths import ROOT
from tests.support.routers import spread_routes

SETTINGS = FitSettings(data="none", experts=3, width=4, router_width=4, blocks=(1, 1, 0, 0), frames=4, size=16)
RECORD = RunRecord(settings=SETTINGS, classes=("a", "b", "c"), tools={})


def spread_model() -> VideoMoE:
    """Random experts behind a router that sends clips to all of them."""
    torch.manual_seed(0)
    model = build_model(RECORD.spec).eval()
    spread_routes(model, torch.from_numpy(to_network(frames(64))))
    return model


def frames(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tint = rng.integers(0, 200, (n, 1, 1, 1, 3))
    return (tint + rng.integers(0, 56, (n, 4, 16, 16, 3))).astype(np.uint8)


def probe_clips(n: int = 4) -> ClipArrays:
    names = tuple(str(i) for i in range(n))
    return ClipArrays(frames(n), np.zeros(n, np.int64), names, names, RECORD.classes)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("export") / "bundle"
    write_bundle(spread_model(), RECORD, probe_clips(), root, training={}, single=True)
    return root


def composed(path: Path, clips: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"clip": to_network(clips)}), strict=True))


@pytest.mark.parametrize("n", [1, 2, 7, 33])
def test_twin_split_files_and_composed_file_agree(bundle: Path, n: int) -> None:
    clips = frames(n, seed=n)
    with torch.no_grad():
        twin = load_twin(bundle).outputs(torch.from_numpy(to_network(clips)))
        logits, route, router = twin.deployed.numpy(), twin.route.numpy(), twin.router.numpy()
    if n == 33:
        assert set(route) == {0, 1, 2}, "the clips must visit every expert for this to show anything"
    with Engine.load(bundle) as engine:
        answers = engine.predict_batch(clips)
    single = composed(bundle / "moe.onnx", clips)
    assert [a.route.expert for a in answers] == route.tolist() == single["route"].tolist()
    np.testing.assert_allclose(np.stack([a.logits for a in answers]), logits, atol=1e-4)
    np.testing.assert_allclose(single["logits"], logits, atol=1e-4)
    np.testing.assert_allclose(single["router_logits"], router, rtol=1e-4, atol=1e-4)


def test_the_composed_file_runs_the_chosen_experts_only(bundle: Path, tmp_path: Path) -> None:
    clips = frames(33, seed=33)
    sound = composed(bundle / "moe.onnx", clips)
    model = onnx.load(bundle / "moe.onnx")
    # A poisoned expert that ran on a clip would leave NaN behind.
    for tensor in model.graph.initializer:
        if tensor.name.startswith("expert_1/") and tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), np.nan, np.float32), tensor.name))
    onnx.save(model, tmp_path / "poisoned.onnx")
    poisoned = composed(tmp_path / "poisoned.onnx", clips)
    hit = sound["route"] == 1
    assert 0 < hit.sum() < 33
    assert np.isnan(poisoned["logits"][hit]).all()
    np.testing.assert_array_equal(poisoned["logits"][~hit], sound["logits"][~hit])


def test_nothing_of_the_exporting_machine_is_in_the_files(bundle: Path) -> None:
    here = str(ROOT).encode()
    for path in bundle.iterdir():
        data = path.read_bytes()
        assert here not in data, path.name
        assert b"site-packages" not in data, path.name


def test_a_graph_that_lost_a_convolution_is_refused(tmp_path: Path) -> None:
    class Hides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv3d(3, 2, 1), nn.Conv3d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x).mean((2, 3, 4))

    with pytest.raises(RuntimeError, match="1 convolutions of 2"):
        export_network(Hides(), torch.zeros(1, 3, 4, 8, 8), "logits", tmp_path / "lost.onnx")
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_kept(bundle: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(DataError, match="exists"):
        write_bundle(spread_model(), RECORD, probe_clips(), bundle, training={})
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hardroute.training.export.bundle.write_manifest", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_bundle(spread_model(), RECORD, probe_clips(), tmp_path / "out", training={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [*sorted(EXPERTS), "restored"])
def test_every_kind_of_expert_answers_as_its_twin(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    expert = build_expert("tsm" if kind == "restored" else kind, classes=5, width=4, blocks=(1, 1, 1, 0)).eval()
    if kind == "restored":
        front = OverUnder(4).eval()
        torch.nn.init.normal_(front.residual.weight)
        expert = Restored(front, expert)
    x = torch.rand(3, 3, 8, 16, 16)
    export_network(expert, x[:1], "logits", tmp_path / "expert.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "expert.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["logits"], {"clip": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, expert(x).numpy(), atol=1e-5)


def test_kinds_take_turns_in_a_mixture() -> None:
    mixed = SETTINGS.model_copy(update={"expert": "r3d18, tsm", "experts": 3})
    assert [expert.kind for expert in mixed.model(3).experts] == ["r3d18", "tsm", "r3d18"]


@pytest.mark.parametrize("gain", [1e-7, 0.005, 1.0, 900.0])
def test_scores_of_any_size_become_readable_and_no_route_changes(gain: float) -> None:
    spec = RECORD.spec.model_copy(update={"router": RECORD.spec.router.model_copy(update={"gain": gain})})
    trained = build_model(spec).eval()
    trained.load_state_dict(spread_model().state_dict())
    found, written = readable(trained, spec, frames(8))
    x = torch.from_numpy(to_network(frames(32, seed=1)))
    assert 0.5 < spread(found, x) < 2
    factor = written.router.gain / gain
    assert math.log2(factor).is_integer()
    with torch.no_grad():
        assert torch.equal(found.router(x), factor * trained.router(x))
        assert torch.equal(found(x), trained(x))
