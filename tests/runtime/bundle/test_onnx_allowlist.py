"""A model that reads other files or carries native code is refused before any library sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hardroute import Engine
from hardroute.runtime.bundle.onnx_allowlist import check_onnx
from hardroute.runtime.errors import BundleError
from tests.support.bundles import make_bundle, replace_file


def model(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def weights() -> TensorProto:
    return numpy_helper.from_array(np.ones((4, 4), np.float32), "w")


def elsewhere(tensor: TensorProto) -> TensorProto:
    """The same tensor with its numbers in the file `w.bin`."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    return tensor


def plain() -> onnx.ModelProto:
    return model(helper.make_node("MatMul", ["x", "w"], ["y"]), tensors=(weights(),))


def external() -> onnx.ModelProto:
    return model(helper.make_node("MatMul", ["x", "w"], ["y"]), tensors=(elsewhere(weights()),))


def external_in_constant() -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=elsewhere(weights()))
    return model(constant, helper.make_node("MatMul", ["x", "w"], ["y"]))


def external_by_entries_alone() -> onnx.ModelProto:
    proto = external()
    proto.graph.initializer[0].ClearField("data_location")
    return proto


def external_in_branch() -> onnx.ModelProto:
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 4])
    branch = helper.make_graph([], "branch", [], [out], [elsewhere(weights())])
    return model(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


def native() -> onnx.ModelProto:
    return model(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft", ep_cache_context=b"\x7fELF"))


def native_in_function() -> onnx.ModelProto:
    proto = plain()
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    proto.functions.append(helper.make_function("own", "F", ["x"], ["y"], [node], []))
    return proto


def test_plain_models_pass() -> None:
    check_onnx(plain().SerializeToString(), "plain")


@pytest.mark.parametrize("build", [external, external_in_constant, external_by_entries_alone, external_in_branch])
def test_tensors_in_other_files_are_refused(build: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(BundleError, match=r"bad\.onnx keeps tensors in other files"):
        check_onnx(build().SerializeToString(), "bad.onnx")


def looping() -> onnx.ModelProto:
    body = helper.make_graph([], "body", [], [])
    return model(helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Loop", ["", ""], [], body=body))


def looping_in_a_branch() -> onnx.ModelProto:
    branch = looping().graph
    del branch.input[:]
    return model(helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch))


def of_another_domain() -> onnx.ModelProto:
    return model(helper.make_node("Gemm", ["x", "w"], ["y"], domain="com.microsoft"), tensors=(weights(),))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (native, "holds the operator 'EPContext'"),
        (looping, "holds the operator 'Loop'"),
        (looping_in_a_branch, "holds the operator 'Loop'"),
        (of_another_domain, "holds an operator of the domain 'com.microsoft'"),
        (native_in_function, "defines operators of its own"),
    ],
)
def test_operators_that_are_not_known_are_refused(build: Callable[[], onnx.ModelProto], says: str) -> None:
    with pytest.raises(BundleError, match=rf"bad\.onnx {says}"):
        check_onnx(build().SerializeToString(), "bad.onnx")


def test_both_names_of_the_domain_of_onnx_pass() -> None:
    check_onnx(model(helper.make_node("Relu", ["x"], ["y"], domain="ai.onnx")).SerializeToString(), "plain")


def test_the_danger_is_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # onnxruntime itself reads a file next to the working directory for a model that came as bytes.
    monkeypatch.chdir(tmp_path)
    np.full((4, 4), 7, np.float32).tofile("w.bin")
    session = onnxruntime.InferenceSession(external().SerializeToString())
    assert session.run(None, {"x": np.ones((1, 4), np.float32)})[0][0, 0] == 28


def test_the_engine_refuses_such_a_bundle(tmp_path: Path) -> None:
    tiny = make_bundle(tmp_path / "bundle")
    replace_file(tiny.root, "expert_1.onnx", external().SerializeToString())
    with pytest.raises(BundleError, match=r"expert_1\.onnx keeps tensors in other files"):
        Engine.load(tiny.root)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\x08\x09",  # an ir_version and nothing else
        b"\x18\x00\x00\x00ORTM" + b"\x00" * 40,
        b"\x3a\xff\xff\xff\xff\x0f",  # a graph longer than the file
        b"\x3b\x3c",  # a group, which onnx never has
        b"\xff" * 20,
        plain().SerializeToString()[:-1],
    ],
)
def test_what_is_no_onnx_file_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"x\.onnx"):
        check_onnx(data, "x.onnx")


def test_a_key_that_protobuf_would_cut_to_another_field_is_refused() -> None:
    hidden = external().graph.SerializeToString()
    key = b"\xba\x80\x80\x80\x10"  # 7 << 3 | 2, the graph's, plus 2 ** 32
    with pytest.raises(BundleError, match="field key too long"):
        check_onnx(plain().SerializeToString() + key + _length(len(hidden)) + hidden, "x.onnx")


def test_ort_format_is_refused_even_if_it_reads_as_onnx() -> None:
    data = b"\x12\x06ab" + b"ORTM" + plain().SerializeToString()  # the mark inside the producer's name
    assert onnx.load_from_string(data).producer_name == "abORTM"
    with pytest.raises(BundleError, match="in ORT format"):
        check_onnx(data, "x.onnx")


def test_nesting_without_end_is_refused() -> None:
    data = b""
    for _ in range(200):  # graph -> node -> attribute -> graph
        for key in (0x32, 0x2A, 0x0A):
            data = bytes([key]) + _length(len(data)) + data
    with pytest.raises(BundleError, match="nested deeper"):
        check_onnx(b"\x3a" + _length(len(data)) + data, "deep.onnx")


@given(st.binary(max_size=200), st.integers(0, 150), st.integers(0, 255))
def test_any_bytes_pass_or_are_refused_in_one_way(noise: bytes, position: int, value: int) -> None:
    mutated = bytearray(plain().SerializeToString())
    mutated[position % len(mutated)] = value
    for data in (noise, bytes(mutated)):
        with contextlib.suppress(BundleError):
            check_onnx(data, "fuzz.onnx")


def _length(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])
