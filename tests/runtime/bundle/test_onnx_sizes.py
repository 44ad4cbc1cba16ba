"""A small file that makes something huge is refused before a library sees it; what networks do passes."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hardroute.runtime.bundle.onnx_allowlist import check_onnx
from hardroute.runtime.errors import BundleError

HUGE = [40_000, 40_000]  # 6.4 GB of float32


def model(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    graph = helper.make_graph(list(nodes), "g", [x], [y], list(tensors))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def floats(name: str, *values: float) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def node(op: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [output], **attributes)


def filled() -> onnx.ModelProto:
    return model(node("ConstantOfShape", "s"), tensors=(ints("s", *HUGE),))


def filled_by_a_constant_node() -> onnx.ModelProto:
    return model(node("Constant", output="s", value_ints=HUGE), node("ConstantOfShape", "s"))


def filled_by_typed_numbers() -> onnx.ModelProto:
    return model(
        node("Constant", output="s", value=helper.make_tensor("v", TensorProto.INT64, [2], HUGE)),
        node("ConstantOfShape", "s"),
    )


def filled_by_parts() -> onnx.ModelProto:
    return model(
        node("Cast", "a", output="b", to=TensorProto.INT64),
        node("Concat", "b", "b2", output="s", axis=0),
        node("ConstantOfShape", "s"),
        tensors=(floats("a", 40_000), ints("b2", 40_000)),
    )


def filled_by_arithmetic() -> onnx.ModelProto:
    return model(
        node("Shape", "x", output="d"),
        node("Mul", "d", "k", output="e"),
        node("Mul", "e", "k2", output="s"),
        node("ConstantOfShape", "s"),
        tensors=(ints("k", 40_000), ints("k2", 40_000)),
    )


def filled_in_a_branch() -> onnx.ModelProto:
    out = helper.make_tensor_value_info("s_", TensorProto.INT64, [2])
    branch = helper.make_graph([node("Constant", output="s_", value_ints=HUGE)], "b", [], [out])
    choice = node("If", "c", output="s", then_branch=branch, else_branch=branch)
    return model(choice, node("ConstantOfShape", "s"))


def expanded() -> onnx.ModelProto:
    return model(node("Expand", "x", "s"), tensors=(ints("s", *HUGE, 1, 1),))


def tiled() -> onnx.ModelProto:
    return model(node("Tile", "x", "s"), tensors=(ints("s", *HUGE),))


def tiled_again_and_again() -> onnx.ModelProto:
    names = ["x", *"abc", "y"]
    steps = (node("Tile", one, "s", output=other) for one, other in itertools.pairwise(names))
    return model(*steps, tensors=(ints("s", 10, 20),))


def resized() -> onnx.ModelProto:
    return model(node("Resize", "x", "", "", "s"), tensors=(ints("s", 1, 3, *HUGE),))


def scaled() -> onnx.ModelProto:
    return model(node("Resize", "x", "", "s"), tensors=(floats("s", 1, 1, 1e4, 1e4),))


def padded() -> onnx.ModelProto:
    return model(node("Pad", "x", "s"), tensors=(ints("s", 0, 0, *HUGE),))


def padded_by_a_convolution() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    return model(node("Conv", "x", "w", kernel_shape=[1, 1], pads=[20_000] * 4), tensors=(weight,))


def stretched_by_a_convolution() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")
    return model(node("ConvTranspose", "x", "w", kernel_shape=[1, 1], strides=[10_000] * 2), tensors=(weight,))


def counted() -> onnx.ModelProto:
    return model(node("Range", "a", "b", "c"), tensors=(ints("a", 0), ints("b", 10**9), ints("c", 1)))


def counted_in_small_steps() -> onnx.ModelProto:
    return model(node("Range", "a", "b", "c"), tensors=(floats("a", 0), floats("b", 1), floats("c", 1e-9)))


def hollow() -> onnx.ModelProto:
    return model(node("Add", "x", "w"), tensors=(TensorProto(name="w", dims=HUGE, data_type=1),))


def declared() -> onnx.ModelProto:
    proto = model(node("Relu", "x"))
    proto.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, HUGE))
    return proto


def sparse() -> onnx.ModelProto:
    proto = model(node("Relu", "x"))
    values, places = floats("v", 1.0), ints("", 0)
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, HUGE))
    return proto


BOMBS = [
    filled, filled_by_a_constant_node, filled_by_typed_numbers, filled_by_parts, filled_by_arithmetic,
    filled_in_a_branch, expanded, tiled, tiled_again_and_again, resized, scaled, padded, padded_by_a_convolution,
    stretched_by_a_convolution, counted, counted_in_small_steps, hollow, declared, sparse,
]  # fmt: skip


@pytest.mark.parametrize("build", BOMBS)
def test_a_bomb_is_refused_before_memory_is_spent(build: Callable[[], onnx.ModelProto]) -> None:
    data = build().SerializeToString()
    assert len(data) < 10_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BundleError, match=r"bad\.onnx (makes|declares|holds) a tensor"):
        check_onnx(data, "bad.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


def usual() -> list[onnx.ModelProto]:
    weight = numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "w")
    convolutions = [node("Conv", "x", "w", kernel_shape=[3, 3], pads=[1] * 4, strides=[1, 1]) for _ in range(500)]
    up = [node("Resize", "x", "", "s") for _ in range(5)]
    return [
        model(*convolutions, tensors=(weight,)),
        model(*up, tensors=(floats("s", 1, 1, 2, 2, 2),)),
        model(node("Pad", "x", "s"), tensors=(ints("s", 0, 0, 3, 112, 112, 0, 0, 3, 112, 112),)),
        # The rest of an axis is asked for by the largest number that there is.
        model(
            node("Shape", "x", output="d"),
            node("Slice", "d", "one", "end", output="e"),
            node("Concat", "e", "k", output="s", axis=0),
            node("Expand", "t", "s"),
            tensors=(ints("one", 1), ints("end", 2**63 - 1), ints("k", 768), floats("t", 1)),
        ),
        model(node("ConstantOfShape", "s"), tensors=(ints("s", 64, 1024),)),
        model(node("Range", "a", "b", "c"), tensors=(ints("a", 0), ints("b", 4096), ints("c", 1))),
        model(node("Add", "x", "w"), tensors=(helper.make_tensor("w", TensorProto.FLOAT16, [3], [1.0, 2.0, 3.0]),)),
        model(node("Add", "x", "w"), tensors=(helper.make_tensor("w", TensorProto.BOOL, [2], [True, False]),)),
    ]


@pytest.mark.parametrize("number", range(len(usual())))
def test_what_networks_do_passes(number: int) -> None:
    check_onnx(usual()[number].SerializeToString(), "good.onnx")
