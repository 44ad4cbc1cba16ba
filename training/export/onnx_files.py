"""ONNX files of a routed model: router and experts one by one, and composed with routing inside the graph."""

import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, helper, numpy_helper
from torch import Tensor, nn

OPSET = 18
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def export_network(network: nn.Module, example: Tensor, output: str, path: Path) -> None:
    """Write one network as `clip` (batch, C, T, H, W) float32 -> `output` (batch, ...); batch is free, the rest fixed.

    Raises:
        RuntimeError: the graph does not hold every convolution of the network (a tracer can drop what its example
            does not visit).
    """
    # The exporter announces on stderr that torchvision, which nothing here needs, is not installed.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    batch = torch.export.Dim("batch", min=1, max=65536)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            # A batch of one would be specialised on.
            (torch.cat([example, example]),),
            dynamo=True,
            input_names=["clip"],
            output_names=[output],
            dynamic_shapes=({0: batch},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # noqa: S101
    model = clean(program.model_proto)
    expected = sum(isinstance(module, CONVOLUTIONS) for module in network.modules())
    found = sum(node.op_type == "Conv" for node in model.graph.node)
    if found != expected:
        raise RuntimeError(f"{path.name}: exported {found} convolutions of {expected}")
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())


def clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what the exporter notes beside the graph: source lines and paths of the machine that exported it."""
    del model.metadata_props[:]
    model.doc_string = ""
    del model.graph.metadata_props[:]
    for part in [*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output]:
        del part.metadata_props[:]
        part.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    return model


def compose_single(router: Path, experts: list[Path], classes: int, path: Path) -> None:
    """Write one file that routes inside the graph and runs the chosen experts only.

    Inputs and outputs: `clip` (batch, C, T, H, W) -> `logits` (batch, classes), `router_logits` (batch, experts),
    `route` (batch,) int64. Each expert stands in an `If` that is taken when a clip of the batch is routed to it: its
    clips are gathered, run, and their logits scattered into the output.
    """
    routing = compose.add_prefix(onnx.load(router), "router/", rename_inputs=False, rename_outputs=False).graph
    nodes, initializers = list(routing.node), list(routing.initializer)
    nodes.append(helper.make_node("ArgMax", ["router_logits"], ["route"], axis=1, keepdims=0))
    initializers += [
        numpy_helper.from_array(np.array([0]), "zero"),
        numpy_helper.from_array(np.array([classes]), "classes"),
        numpy_helper.from_array(np.array([-1]), "flat"),
    ]
    nodes += [
        helper.make_node("Shape", ["clip"], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "classes"], ["logits_shape"], axis=0),
        helper.make_node(
            "ConstantOfShape",
            ["logits_shape"],
            ["logits_0"],
            value=helper.make_tensor("none_yet", TensorProto.FLOAT, [1], [0.0]),
        ),
    ]
    for j, file in enumerate(experts):
        expert = compose.add_prefix(onnx.load(file), f"expert_{j}/").graph
        initializers += [numpy_helper.from_array(np.array(j), f"index_{j}"), *expert.initializer]
        before, after = f"logits_{j}", "logits" if j == len(experts) - 1 else f"logits_{j + 1}"
        result = helper.make_tensor_value_info(f"expert_{j}/after", TensorProto.FLOAT, None)
        rest = helper.make_tensor_value_info(f"expert_{j}/before", TensorProto.FLOAT, None)
        chosen = helper.make_graph(
            [
                helper.make_node("NonZero", [f"mask_{j}"], [f"expert_{j}/found"]),
                helper.make_node("Reshape", [f"expert_{j}/found", "flat"], [f"expert_{j}/rows"]),
                helper.make_node("Gather", ["clip", f"expert_{j}/rows"], [expert.input[0].name], axis=0),
                *expert.node,
                helper.make_node("Transpose", [f"expert_{j}/found"], [f"expert_{j}/where"], perm=[1, 0]),
                helper.make_node(
                    "ScatterND", [before, f"expert_{j}/where", expert.output[0].name], [f"expert_{j}/after"]
                ),
            ],
            f"expert_{j}",
            [],
            [result],
        )
        skipped = helper.make_graph(
            [helper.make_node("Identity", [before], [f"expert_{j}/before"])],
            f"without_expert_{j}",
            [],
            [rest],
        )
        nodes += [
            helper.make_node("Equal", ["route", f"index_{j}"], [f"mask_{j}"]),
            helper.make_node("Cast", [f"mask_{j}"], [f"count_{j}"], to=TensorProto.INT64),
            helper.make_node("ReduceMax", [f"count_{j}", "zero"], [f"any_{j}"], keepdims=0),
            helper.make_node("Cast", [f"any_{j}"], [f"needed_{j}"], to=TensorProto.BOOL),
            helper.make_node("If", [f"needed_{j}"], [after], then_branch=chosen, else_branch=skipped),
        ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", classes]),
        helper.make_tensor_value_info("router_logits", TensorProto.FLOAT, ["batch_size", len(experts)]),
        helper.make_tensor_value_info("route", TensorProto.INT64, ["batch_size"]),
    ]
    graph = helper.make_graph(nodes, "moe", list(routing.input), outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
