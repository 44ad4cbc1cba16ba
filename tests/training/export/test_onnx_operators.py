"""Every network that we can export holds only operators that the runtime takes and that TensorRT's parser reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch

from hardroute.models import ExpertSpec, ModelSpec, RouterSpec, build_model
from hardroute.models.experts import EXPERTS
from hardroute.runtime.bundle.onnx_allowlist import OPERATORS, check_onnx
from hardroute.training.export.onnx_files import export_network
from tests.support.paths import ROOT

# Of OPERATORS, those that the table marks as supported (floats; convolutions and pooling in two or three dimensions,
# their weights in the file; slices along axes that the file fixes): NonZero is not, so moe.onnx is not for TensorRT.
# https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md
READ_BY_TENSORRT = frozenset(
    "Add Clip Concat Conv Div Gemm MaxPool Mul Pad ReduceMean Relu Reshape Resize Shape Slice Sub".split()  # noqa: SIM905
)


def operators(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from operators(inner)


def exported(network: torch.nn.Module, path: Path) -> onnx.ModelProto:
    export_network(network.eval(), torch.zeros(1, 3, 8, 32, 32), "logits", path)
    check_onnx(path.read_bytes(), path.name)
    return onnx.load(path)


def assert_read_by_tensorrt(model: onnx.ModelProto) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    for node in operators(model.graph):
        assert node.domain in ("", "ai.onnx")
        assert node.op_type in READ_BY_TENSORRT, node.op_type
        if node.op_type == "Conv":
            kernel = next(a.ints for a in node.attribute if a.name == "kernel_shape")
            assert len(kernel) in (2, 3) and node.input[1] in weights
        if node.op_type == "MaxPool":
            assert len(node.output) == 1, "TensorRT gives no indices"
        if node.op_type == "Slice" and len(node.input) > 3:
            assert node.input[3] in weights, "axes must be fixed"
        if node.op_type == "Resize":
            values = {a.name: a.s.decode() for a in node.attribute if a.type == onnx.AttributeProto.STRING}
            assert values.get("mode", "nearest") in ("nearest", "linear")
            allowed = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
            assert values.get("coordinate_transformation_mode", "half_pixel") in allowed


@pytest.mark.parametrize("kind", EXPERTS)
def test_experts(kind: str, tmp_path: Path) -> None:
    model = build_model(ModelSpec(classes=3, experts=(ExpertSpec(kind=kind, width=2, blocks=(1, 1, 0, 0)),)))
    assert_read_by_tensorrt(exported(model.experts[0], tmp_path / "expert.onnx"))


@pytest.mark.parametrize("gain", [1.0, 0.005])
def test_router(tmp_path: Path, gain: float) -> None:
    spec = ModelSpec(classes=3, router=RouterSpec(gain=gain), experts=(ExpertSpec(width=2),) * 2)
    model = build_model(spec)
    assert_read_by_tensorrt(exported(model.router, tmp_path / "router.onnx"))


def test_experts_behind_a_restoring_network(tmp_path: Path) -> None:
    model = build_model(ModelSpec(classes=3, experts=(ExpertSpec(width=2, blocks=(1, 0, 0, 0)),), restore=2))
    assert_read_by_tensorrt(exported(model.experts[0], tmp_path / "expert.onnx"))


def test_the_shipped_bundle() -> None:
    zoo = ROOT / "models" / "zoo" / "motion"
    files = [zoo / "router.onnx", *sorted(zoo.glob("expert_*.onnx"))]
    assert len(files) == 5
    for file in files:
        assert_read_by_tensorrt(onnx.load(file))
    check_onnx((zoo / "moe.onnx").read_bytes(), "moe.onnx")


def test_an_operator_that_tensorrt_does_not_read_is_seen() -> None:
    zoo = ROOT / "models" / "zoo" / "motion"
    with pytest.raises(AssertionError, match=r"ArgMax|NonZero|If"):
        assert_read_by_tensorrt(onnx.load(zoo / "moe.onnx"))
    assert READ_BY_TENSORRT < OPERATORS
